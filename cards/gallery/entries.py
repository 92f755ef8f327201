"""What the gallery shows of each model: its card, its record, and its row of results."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from splitrun.errors import ReportError

from ...zoo.catalog import has_weights
from ...zoo.hub_push import RECORD_NAME
from ...zoo.model_rows import ModelRow, package_rows
from ...zoo.models import is_name
from ...zoo.spec import ModelSpec
from ..card import CardFacts
from ..record import read_record

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


@dataclass(frozen=True)
class Entry:
    """A model with a card.

    Attributes:
        folder: Folder of the card.
        page: Name of its page's folder.
        facts: What the card is rendered from.
    """

    folder: Path
    page: str
    facts: CardFacts

    @property
    def spec(self) -> ModelSpec:
        """Spec of the model."""
        return self.facts.spec

    @property
    def device_sha256(self) -> str:
        """Digest of the device half; empty where no bundle was made."""
        return self.facts.manifest.provenance.device_sha256 if self.facts.manifest else ""

    @property
    def weights_at_hand(self) -> bool:
        """Whether the model's weights are on this machine."""
        return is_name(self.spec.name) and has_weights(self.spec.name)

    @property
    def ran_in(self) -> list[str]:
        """Engines that halves of it were run in, and compared with PyTorch or timed."""
        pairs = self.facts.manifest.parity.pairs if self.facts.manifest else ()
        engines = [half for pair in pairs for half in (pair.device, pair.edge)]
        engines += [one.engine for one in self.facts.measurements]
        return list(dict.fromkeys(engine for engine in engines if not engine.startswith("torch")))

    @property
    def latencies(self) -> dict[str, float]:
        """Median latency of the device half by machine, milliseconds."""
        found = {}
        if profile := self.facts.profile:
            machine = f"{profile.environment['cpu']}, {profile.runtime}"
            found[machine] = profile.latency.steps["total"].p50_ms
        for one in self.facts.measurements:
            if one.half == "device":
                found[f"{one.machine}, {one.engine}"] = one.latency.p50_ms
        return found


def read_entries(folders: Iterable[Path]) -> list[Entry]:
    """Read the cards that lie in folders, at any depth; models of the package's tables come first.

    Raises:
        ReportError: There is none, a card has no valid record, or two are of one model.
    """
    found: dict[str, Entry] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"There is no folder {folder}.")
        for path in sorted(folder.rglob(RECORD_NAME)):
            facts = read_record(path.parent).facts()
            name = facts.spec.name
            if name in found:
                raise ReportError(
                    f"Two cards are of {name}: {found[name].folder} and {path.parent}.",
                    next_step="Give the folder of one of them.",
                )
            found[name] = Entry(path.parent, page_name(name), facts)
    if not found:
        said = ", ".join(map(str, folders))
        raise ReportError(
            f"No card with its {RECORD_NAME} lies in {said}: a gallery of no model.",
            next_step="Write one: splitzoo cards build … -o DIR",
        )
    names = list(dict.fromkeys([*(row.model for row in package_rows()), *found]))
    return sorted(found.values(), key=lambda one: names.index(one.facts.spec.name))


def page_name(name: str) -> str:
    """Return a name for a model's folder on any file system, and in an address."""
    if _PLAIN.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80].strip("-.")
    return f"{plain}-{sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def rows_of(entries: Sequence[Entry], rows: Iterable[ModelRow]) -> list[ModelRow]:
    """Return the rows of results on the images that the entries were measured on.

    A card's own accuracy gets a row where no table has one.
    """
    from ...profile.rows import make_rows

    rows = list(rows)
    known = {(row.model_id, row.data_sha256) for row in rows}
    reports = [entry.facts.accuracy for entry in entries if entry.facts.accuracy]
    data = {report.data.sha256 for report in reports}
    new = [one for one in reports if (one.model_id, one.data.sha256) not in known]
    return [row for row in rows if row.data_sha256 in data] + (make_rows(new) if new else [])
