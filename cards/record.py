"""``card.json``: where each number on a card comes from, for programs that check it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from splitrun.errors import ReportError
from splitrun.manifest import Manifest
from splitrun.strict_json import read_strictly

from .. import __version__
from ..documents import read_document
from ..export.manifest import spec_of
from ..profile.accuracy_report import AccuracyReport
from ..profile.rd_points import RdPoint
from ..profile.report import EncoderProfile, Part
from ..zoo.config import ModelConfig
from ..zoo.hub_push import RECORD_NAME
from .card import CardFacts, check_one_id, check_one_spec
from .measurements import Measurement

SCHEMA_VERSION = 1
_MOST_BYTES = 1 << 24
_MACHINE = ("cpu", "cores", "instructions", "machine", "system")

Check = Literal["counted", "hash", "scored", "timed", "recorded"]
Value = int | float | str


class Figure(Part):
    """A number or digest on a card.

    Attributes:
        name: Name within the card.
        value: What the card says.
        unit: Its unit.
        source: Which of the card's sources it is from.
        check: What becomes of it when the card is verified: counted again, hashed again, scored
            again where the data are given, timed beside, or compared with its source alone.
    """

    name: str
    value: Value
    unit: str
    source: str
    check: Check


class Source(Part):
    """A document that numbers of a card are from.

    Attributes:
        command: Command that made it.
        inputs: Digests of what it was made of, by name.
        machine: Machine that it was made on.
        versions: Versions of the software.
        date: Day on which it was made; empty where that was not noted.
    """

    command: str
    inputs: dict[str, str]
    machine: dict[str, str]
    versions: dict[str, str]
    date: str


class CardRecord(Part):
    """All of ``card.json``.

    Attributes:
        model: Name of the model.
        splitzoo: Version that wrote the card.
        repository: Repository on the Hub that the card is for.
        figures: The numbers.
        sources: The documents, described.
        manifest: Manifest of the bundle, if one was made.
        profile: Report of the encoder, if it was measured.
        accuracy: Report of accuracy, if one was made.
        config: Config of the saved model, if there is one.
        measurements: What was measured on machines, the cards' own apart.
        curve: Points of the R-D curve beside which the model is drawn.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    splitzoo: str
    repository: str
    figures: list[Figure]
    sources: dict[str, Source]
    manifest: dict[str, Any] | None
    profile: EncoderProfile | None
    accuracy: AccuracyReport | None
    config: ModelConfig | None
    measurements: list[Measurement]
    curve: list[RdPoint]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "CardRecord":
        names = [figure.name for figure in self.figures]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the figure {twice} is there twice")
        return self

    @classmethod
    def of(cls, facts: CardFacts) -> "CardRecord":
        """Record what a card is rendered from."""
        return cls(
            model=facts.spec.name,
            splitzoo=__version__,
            repository=facts.repository,
            figures=list(figures_of(facts)),
            sources=dict(_sources(facts)),
            manifest=json.loads(json.dumps(dataclasses.asdict(facts.manifest)))
            if facts.manifest
            else None,
            profile=facts.profile,
            accuracy=facts.accuracy,
            config=facts.config,
            measurements=list(facts.measurements),
            curve=list(facts.curve),
        )

    def facts(self) -> CardFacts:
        """Return what the card is rendered from.

        Raises:
            ReportError: The documents are not of one model, or the manifest is not valid.
        """
        try:
            manifest = read_strictly(Manifest, self.manifest) if self.manifest else None
        except ValueError as error:
            raise ReportError(f"The manifest in {RECORD_NAME} is not valid: {error}.") from error
        documents = {
            "the profile": self.profile,
            "the accuracy report": self.accuracy,
            "the config": self.config,
        }
        specs = {"the bundle": spec_of(manifest)} if manifest else {}
        specs |= {name: one.spec for name, one in documents.items() if one}
        if not specs:
            raise ReportError(f"{RECORD_NAME} holds no source, so nothing says what the model is.")
        check_one_spec(specs)
        check_one_id(manifest, self.profile, self.accuracy)
        spec = next(iter(specs.values()))
        if spec.name != self.model:
            raise ReportError(f"{RECORD_NAME} is of {self.model}, but its sources of {spec.name}.")
        return CardFacts(
            spec=spec,
            manifest=manifest,
            profile=self.profile,
            config=self.config,
            accuracy=self.accuracy,
            curve=tuple(self.curve),
            repository=self.repository,
            measurements=tuple(self.measurements),
        )

    def to_json(self) -> str:
        """Write the record."""
        return self.model_dump_json(indent=1) + "\n"


def read_record(folder: Path) -> CardRecord:
    """Read the record beside a card.

    Raises:
        ReportError: It is missing, damaged, or of another schema version.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        raise ReportError(
            f"{folder} holds no {RECORD_NAME}, so its card cannot be checked.",
            next_step="Write the card again: splitzoo cards build … -o DIR",
        )
    return read_document(
        CardRecord,
        path,
        what="record of a card",
        version_field="schema_version",
        supported=SCHEMA_VERSION,
        limit_bytes=_MOST_BYTES,
        error=ReportError,
        next_step="Write the card again: splitzoo cards build … -o DIR",
    )


def _sources(facts: CardFacts) -> Iterator[tuple[str, Source]]:
    manifest, model = facts.manifest, {}
    if manifest:
        made = manifest.provenance
        model = {"model": made.model_sha256}
        yield (
            "bundle",
            Source(command=made.command, inputs=model, machine={}, versions=made.versions, date=""),
        )
    for name, report in (("profile", facts.profile), ("accuracy", facts.accuracy)):
        if report:
            data = {"images": facts.accuracy.data.sha256} if name == "accuracy" else {}  # pyright: ignore
            engine = {"runtime": report.runtime}
            yield (
                name,
                Source(
                    command=report.command,
                    inputs=(model or {"model": report.model_id}) | data,
                    machine=_part(report.environment, True),
                    versions=engine | _part(report.environment, False),
                    date=report.date,
                ),
            )
    if facts.config and facts.config.training:
        trained = facts.config.training
        yield (
            "training",
            Source(
                command=trained.command,
                inputs={"weights": facts.config.weights_sha256},
                machine={"machine": trained.machine},
                versions=dict(trained.versions),
                date=trained.date,
            ),
        )
    if facts.calibration:
        yield (
            "calibration",
            Source(
                command=facts.calibration.command, inputs=model, machine={}, versions={}, date=""
            ),
        )


def _part(environment: Mapping[str, str], machine: bool) -> dict[str, str]:
    return {name: said for name, said in environment.items() if (name in _MACHINE) == machine}


def figures_of(facts: CardFacts) -> Iterator[Figure]:
    """Return the numbers and digests on a card, from its documents."""

    def figure(
        source: str, name: str, value: Value | None, unit: str, check: Check
    ) -> list[Figure]:
        if value is None:
            return []
        full = f"{source}.{name}"
        return [Figure(name=full, value=value, unit=unit, source=source, check=check)]

    if accuracy := facts.accuracy:
        for name, score in accuracy.scores.items():
            yield from figure("accuracy", name, score, "share", "scored")
        for name in ("stream_bytes", "payload_bytes", "sc2bench_bytes", "bits_per_pixel"):
            found = getattr(accuracy, name)
            unit = "bits/pixel" if name == "bits_per_pixel" else "bytes"
            for part, value in found.model_dump().items() if found else ():
                yield from figure("accuracy", f"{name}.{part}", value, unit, "scored")
        yield from figure("accuracy", "images", accuracy.data.images, "images", "scored")
        bits = accuracy.encoder.encoder_bits
        yield from figure("accuracy", "encoder_bits", bits, "bits", "counted")
    if profile := facts.profile:
        size = profile.size
        yield from figure("profile", "parameters", size.parameters, "", "counted")
        yield from figure("profile", "encoder_bits", size.encoder_bits, "bits", "counted")
        extra = size.sc2bench_encoder_bits
        yield from figure("profile", "sc2bench_encoder_bits", extra, "bits", "recorded")
        for name, compute in (("device", profile.compute), ("edge", profile.edge_compute)):
            yield from figure("profile", f"{name}_macs", compute.macs, "MACs", "counted")
            yield from figure("profile", f"{name}_flops", compute.flops, "FLOPs", "counted")
        for name in ("graph_bytes", "tables_bytes"):
            yield from figure("profile", name, getattr(size, name), "bytes", "hash")
        memory = profile.peak_memory_bytes
        yield from figure("profile", "peak_memory_bytes", memory, "bytes", "timed")
        for step, times in profile.latency.steps.items():
            for part, value in times.model_dump().items():
                yield from figure("profile", f"{step}.{part}", value, "ms", "timed")
        for name in ("stream_bytes", "payload_bytes", "sc2bench_bytes"):
            found = getattr(profile.rate, name) if profile.rate else None
            for part, value in found.model_dump().items() if found else ():
                yield from figure("profile", f"{name}.{part}", value, "bytes", "recorded")
    if manifest := facts.manifest:
        parity, made = manifest.parity, manifest.provenance
        for name in ("symbols", "symbols_differing", "symbols_tied", "images"):
            yield from figure("bundle", f"parity.{name}", getattr(parity, name), "", "recorded")
        error = parity.output_max_relative_error
        yield from figure("bundle", "parity.output_error", error, "of the largest", "recorded")
        yield from figure("bundle", "model_sha256", made.model_sha256, "SHA-256", "hash")
        yield from figure("bundle", "device_sha256", made.device_sha256, "SHA-256", "hash")
        files = [file for one in manifest.graphs.values() for file in one.files]
        for file in dict.fromkeys([*files, manifest.coding.tables]):
            yield from figure("bundle", file, manifest.files.get(file), "SHA-256", "hash")
    if facts.calibration:
        for name, value in facts.calibration.payload_bytes.items():
            yield from figure("calibration", name, value, "bytes", "recorded")
        for name in ("fitted", "held_out"):
            count = getattr(facts.calibration, name)
            yield from figure("calibration", name, count, "images", "recorded")
    if facts.config and (trained := facts.config.training):
        yield from figure("training", "seconds", trained.seconds, "s", "recorded")
        yield from figure("training", "images", trained.training_images, "images", "recorded")
        weights = facts.config.weights_sha256
        yield from figure("training", "weights_sha256", weights, "SHA-256", "recorded")
