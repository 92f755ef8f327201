"""Compute again what a card says, and list what differs."""

import difflib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from splitrun.errors import ReportError
from splitrun.files import sha256_file

from .. import __version__
from ..progress import SILENT, Progress
from ..zoo.hub_push import CARD_NAME
from .card import CardFacts, render
from .record import RECORD_NAME, CardRecord, Figure, Value, figures_of, read_record
from .writing import card_folder

if TYPE_CHECKING:
    from ..zoo.split_model import SplitModel

_SAME_SCORE = 0.002
"""Difference of a share that another processor may make: two images of a thousand."""

_SAME_BYTES = 0.001
"""The same of bytes, relative."""

Verdict = Literal["same", "differs", "beside", "not checked"]


@dataclass(frozen=True)
class Checked:
    """A number of a card beside what is computed here.

    Attributes:
        name: Name of the number, or place in the card.
        card: What the card says.
        here: What is computed here; None where nothing was.
        verdict: ``"beside"`` where machines may differ: latency and memory.
        note: Why it was not checked; empty otherwise.
    """

    name: str
    card: Value
    here: Value | None
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class CardVerification:
    """What :func:`verify` found.

    Attributes:
        card: Folder of the card, or its repository.
        model: Name of the model.
        checks: Every number, and every line of the card that is not as its sources say.
    """

    card: str
    model: str
    checks: tuple[Checked, ...]

    @property
    def differences(self) -> tuple[Checked, ...]:
        """What differs."""
        return tuple(one for one in self.checks if one.verdict == "differs")


def verify(
    card: str | Path,
    *,
    data: str | Path | None = None,
    bundle: bool = True,
    progress: Progress = SILENT,
) -> CardVerification:
    """Compute again what can be computed here of a card's numbers.

    Its text is held against its record, the record against the documents in it, and those against
    the model: parameters, bits, operations and digests; the files of a bundle that is exported
    again, where the same versions are here; accuracy and bytes, where the data are given. Latency
    is measured beside.

    Args:
        card: Folder of a card, the card, or a repository on the Hub.
        data: Folder of the images that accuracy was measured on.
        bundle: Export a bundle again, and time it.
        progress: Progress to report to.

    Raises:
        ReportError: There is no card or no record, or its documents are of several models.
        WeightsNotFoundError: The model's weights are not here.
    """
    folder = _folder(str(card))
    record = read_record(folder)
    facts = record.facts()
    checks = [*_record_checks(record, facts), *_text_checks(folder, record, facts)]
    progress.step("loading")
    here = dict(_computed(facts, folder, data, bundle, progress))
    checks += [_compared(figure, here, facts) for figure in record.figures]
    return CardVerification(str(card), record.model, tuple(checks))


def _folder(card: str) -> Path:
    from ..zoo.hub import fetch_file, parse_repo
    from ..zoo.resolve import ModelSource

    if Path(card).exists():
        return card_folder(card)
    source = ModelSource.of(card)
    if source.repository is None:
        raise ReportError(
            f"{card} is neither a card nor a repository on the Hub.",
            next_step="Give the folder that holds README.md and card.json.",
        )
    folder, repo = source.fetch(), parse_repo(source.repository)
    found = [fetch_file(repo, name) for name in (CARD_NAME, RECORD_NAME)]
    return next((path.parent for path in reversed(found) if path), folder)


def _record_checks(record: CardRecord, facts: CardFacts) -> Iterator[Checked]:
    """Hold the figures of a record against the documents in it."""
    said = {figure.name: figure.value for figure in record.figures}
    expected = {figure.name: figure.value for figure in figures_of(facts)}
    for name in said.keys() | expected.keys():
        if said.get(name) != expected.get(name):
            known = expected.get(name)
            yield Checked(
                f"{RECORD_NAME}: {name}", said.get(name, "missing"), known, "differs", "its source"
            )


def _text_checks(folder: Path, record: CardRecord, facts: CardFacts) -> Iterator[Checked]:
    """Hold the lines of a card against what its record makes."""
    if record.splitzoo != __version__:
        note = f"it was written by splitzoo {record.splitzoo}"
        yield Checked(CARD_NAME, "its text", None, "not checked", note)
        return
    try:
        written = (folder / CARD_NAME).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"Cannot read the card {folder / CARD_NAME}: {error}") from error
    expected = str(render(facts)).split("\n")
    differing = difflib.SequenceMatcher(None, expected, written, autojunk=False).get_opcodes()
    for kind, first, last, start, end in differing:
        if kind == "equal":
            continue
        for place in range(max(last - first, end - start)):
            right = expected[first + place] if first + place < last else ""
            said = written[start + place] if start + place < end else ""
            yield Checked(f"{CARD_NAME}, line {start + place + 1}", said, right, "differs")


def _computed(
    facts: CardFacts, folder: Path, data: str | Path | None, bundle: bool, progress: Progress
) -> Iterator[tuple[str, Value | str]]:
    from ..profile.flops import count_edge_flops, count_flops
    from ..profile.size import encoder_bits, encoder_parameters

    model = _model(facts, folder)
    progress.step("counting")
    device, edge = count_flops(model), count_edge_flops(model)
    yield "accuracy.encoder_bits", encoder_bits(model)
    yield "profile.encoder_bits", encoder_bits(model)
    yield "profile.parameters", encoder_parameters(model)
    yield from (("profile.device_macs", device.macs), ("profile.device_flops", device.flops))
    yield from (("profile.edge_macs", edge.macs), ("profile.edge_flops", edge.flops))
    yield "bundle.model_sha256", model.digest().hex()
    yield "bundle.device_sha256", model.device_digest().hex()
    if bundle and facts.manifest:
        progress.step("exporting again")
        yield from _exported(model, facts)
    if data and facts.accuracy:
        yield from _scored(model, facts, Path(data), progress)


def _model(facts: CardFacts, folder: Path) -> "SplitModel":
    from ..zoo.config import CONFIG_NAME
    from ..zoo.resolve import ModelSource

    own = folder if (folder / CONFIG_NAME).is_file() else None
    source = ModelSource.of(own or facts.repository or facts.source)
    return source.load(seed=None if own else facts.seed)


def _exported(model: "SplitModel", facts: CardFacts) -> Iterator[tuple[str, Value]]:
    """Export again, and give the digests of files, sizes, and latency of the new bundle."""
    from splitrun.bundle import open_bundle
    from splitrun.machine import versions

    from ..export.running import bench_bundle
    from ..export.splitting import split
    from ..profile.size import deployed_bytes

    manifest = facts.manifest
    assert manifest
    theirs = {k: v for k, v in manifest.provenance.versions.items() if k != "splitzoo"}
    with tempfile.TemporaryDirectory() as place:
        again = Path(place, "bundle")
        if theirs == versions(*theirs) and manifest.precisions == "fp32":
            split(model, again, target=manifest.target)
            files = [file for one in manifest.graphs.values() for file in one.files]
            for file in dict.fromkeys([*files, manifest.coding.tables]):
                if (again / file).is_file():
                    yield f"bundle.{file}", sha256_file(again / file)
        if facts.profile and facts.profile.subject == "bundle" and again.is_dir():
            opened = open_bundle(again)
            graph, tables = deployed_bytes(opened)
            yield from (("profile.graph_bytes", graph), ("profile.tables_bytes", tables))
            threads = facts.profile.latency.threads
            bench = bench_bundle(again, "device", threads=threads, warmup=5, iterations=20)
            for step, times in bench.latency.items():
                for part, value in vars(times).items():
                    yield f"profile.{step}.{part}", value
            yield "profile.peak_memory_bytes", bench.peak_memory_bytes


def _scored(
    model: "SplitModel", facts: CardFacts, data: Path, progress: Progress
) -> Iterator[tuple[str, Value]]:
    from ..profile.evaluate import evaluate
    from ..profile.subjects import ModelSubject, read_labelled
    from ..zoo.datasets import digest

    expected = facts.accuracy
    assert expected
    subject = ModelSubject(model)
    dataset = read_labelled(subject, data)
    if digest(subject.samples(dataset.samples)) != expected.data.sha256:
        raise ReportError(
            f"{data} holds other images than those that the card's accuracy was measured on.",
            next_step=f"Those are {expected.data.images:,} in a folder {expected.data.folder}/.",
        )
    progress.step("coding and scoring images")
    report, _ = evaluate(subject, dataset, data, progress=progress)
    again = CardFacts(facts.spec, None, None, accuracy=report)
    for figure in figures_of(again):
        if figure.check == "scored":
            yield figure.name, figure.value


def _compared(figure: Figure, here: dict[str, Value], facts: CardFacts) -> Checked:
    value = here.get(figure.name)
    if value is None:
        return Checked(figure.name, figure.value, None, "not checked", _why(figure))
    if figure.check == "timed":
        return Checked(figure.name, figure.value, value, "beside")
    same = figure.value == value or (figure.check == "scored" and _near(figure, value))
    return Checked(figure.name, figure.value, value, "same" if same else "differs")


def _near(figure: Figure, value: Value) -> bool:
    if isinstance(value, str) or isinstance(figure.value, str):
        return False
    if figure.unit == "share":
        return abs(value - figure.value) <= _SAME_SCORE
    return abs(value - figure.value) <= _SAME_BYTES * abs(figure.value)


def _why(figure: Figure) -> str:
    return {
        "scored": "the images are not given: --data DIR",
        "timed": "not timed here",
        "hash": "other versions are here, or no bundle was exported",
        "counted": "not counted here",
        "recorded": "held against its source alone",
    }[figure.check]
