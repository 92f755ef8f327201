"""The images of a run, as a file: what an interrupted run compares its data set with."""

import csv
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from splitrun.files import new_file

from ..datasets import Dataset, Sample, Split

NAME = "images.tsv"
_EXAMPLES = 3

Inventory = dict[str, tuple[str, str]]
"""Size in bytes and digest of the target, in words, by split and name of the image."""


def take_inventory(splits: Iterable[tuple[Split, Dataset]]) -> Inventory:
    """List the images of a data set."""
    return {
        f"{split}/{sample.name}": (str(_size(sample.path)), _target(sample))
        for split, dataset in splits
        for sample in dataset.samples
    }


def write_inventory(run: Path, inventory: Inventory) -> None:
    """Write the images of a run into its folder."""
    with (
        new_file(run / NAME, force=True) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(("image", "bytes", "target"))
        rows.writerows((name, *facts) for name, facts in inventory.items())


def differences(run: Path, now: Inventory) -> str:
    """Say in words how a data set differs from that of a run; empty where it does not."""
    then = dict(_read(run / NAME))
    changed = {
        "added": [name for name in now if name not in then],
        "removed": [name for name in then if name not in now],
        "changed": [name for name in now if name in then and now[name] != then[name]],
    }
    return ", ".join(
        f"{len(names):,} {how} ({', '.join(names[:_EXAMPLES])}{', …' * (len(names) > _EXAMPLES)})"
        for how, names in changed.items()
        if names
    )


def _read(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in list(csv.reader(file, delimiter="\t"))[1:]:
            if len(row) == 3:
                yield row[0], (row[1], row[2])


def _target(sample: Sample) -> str:
    target = sample.target
    if isinstance(target, int):
        return str(target)
    if isinstance(target, Path):
        return f"{_size(target)} bytes"
    return f"{zlib.crc32(target.boxes.tobytes() + target.labels.tobytes()):08x}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
