"""A Hugging Face model card, rendered from a bundle's manifest and reports of measurements."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup
from yaml import YAMLError

from splitrun.bundle import open_bundle
from splitrun.coding import CODERS
from splitrun.errors import ReportError
from splitrun.manifest import Manifest
from splitrun.sizes import format_size

from ..export.manifest import calibration_of, spec_of
from ..export.markdown import render as fill_in
from ..export.targets import TARGETS
from ..profile.accuracy_report import AccuracyReport, read_accuracy
from ..profile.rd_points import RdPoint, points_of_reports, points_of_rows
from ..profile.report import EncoderProfile, read_report
from ..zoo.backbones.weight_packages import WEIGHT_PACKAGES
from ..zoo.calibration.record import CalibrationRecord
from ..zoo.config import ModelConfig, read_config
from ..zoo.hub_push import CURVE_NAME, SPLIT_NAME
from ..zoo.known_data import about
from ..zoo.metrics import NAMES
from ..zoo.model_rows import package_rows
from ..zoo.packaged import packaged, packaged_folder
from ..zoo.resolve import ModelSource, is_assembled
from ..zoo.spec import ModelSpec
from ..zoo.train.recipe_files import stages_of
from .citation import bibtex
from .measurements import Measurement
from .sources import list_sources

_OUTPUTS = {
    "image-classification": "logits (N, {}) float32",
    "object-detection": "boxes, labels and scores of {} classes, for each image",
    "semantic-segmentation": "logits (N, {}, H, W) float32",
}
_TOLD = {
    "image-classification": "one of {} classes for each image, whatever it shows",
    "object-detection": "objects of {} classes, and nothing of others",
    "semantic-segmentation": "one of {} classes for each pixel, whatever it shows",
}
_LICENCES = {
    "mit": "MIT licence",
    "apache-2.0": "Apache-2.0 licence",
    None: "parts that others published keep their licences",
}
_TEMPLATE = Path(__file__).with_name("card.md.jinja")


@dataclass(frozen=True)
class CardFacts:
    """All that a card is rendered from.

    Attributes:
        spec: Spec of the model.
        manifest: Manifest of a bundle, if one was made.
        profile: Report of its encoder, if one was measured.
        config: Config of its saved folder, if there is one.
        accuracy: Report of its accuracy, if one was made.
        curve: Points of its family and of codecs on the images of its accuracy.
        repository: Repository on the Hub that it is published in; empty where it is not.
        measurements: What was measured of it on machines.
    """

    spec: ModelSpec
    manifest: Manifest | None
    profile: EncoderProfile | None
    config: ModelConfig | None = None
    accuracy: AccuracyReport | None = None
    curve: tuple[RdPoint, ...] = ()
    repository: str = ""
    measurements: tuple[Measurement, ...] = ()

    @property
    def model_id(self) -> str:
        """8 hexadecimal digits, of all tensors of the model; empty where no source says."""
        report = self.profile or self.accuracy
        if report or self.manifest is None:
            return report.model_id if report else ""
        return self.manifest.provenance.model_id

    @property
    def weights(self) -> str:
        """``"random"``, ``"trained"``, or empty where no source says."""
        report = self.profile or self.accuracy
        if report:
            return report.weights
        if self.manifest:
            return self.manifest.provenance.weights
        if self.config:
            return "trained" if self.config.random_seed is None else "random"
        return ""

    @property
    def source(self) -> str:
        """Name, folder or repository that the model is loaded from."""
        report = self.profile or self.accuracy
        if self.repository or report:
            return self.repository or (report.source if report else "")
        return self.manifest.provenance.source if self.manifest else self.spec.name

    @property
    def rates(self) -> list[RdPoint]:
        """The model at each rate that was measured, by bytes; empty where it has one rate."""
        coding = self.accuracy.calibrated if self.accuracy else ""
        own = [one for one in self.curve if (one.model, one.coding) == (self.spec.name, coding)]
        return own if len(own) > 1 else []

    @property
    def calibration(self) -> CalibrationRecord | None:
        """Record of how the entropy tables were fitted to images, if they were."""
        if self.manifest:
            return calibration_of(self.manifest)
        return self.config.calibration if self.config else None

    @property
    def split_command(self) -> str:
        """The command that made the bundle, or that would."""
        if self.manifest:
            return self.manifest.provenance.command
        words = ["splitzoo", "export", "split", self.source, "--target", "cpu"]
        words += [] if self.seed is None else ["--random-weights", "--seed", str(self.seed)]
        return shlex.join(words)

    @property
    def seed(self) -> int | None:
        """Seed of random weights."""
        if self.profile:
            return self.profile.seed
        if self.manifest:
            return self.manifest.provenance.seed
        return self.config.random_seed if self.config else None


class CardSources(TypedDict, total=False):
    """Files that a card is made of; what is None or left out is not on the card.

    Attributes:
        bundle: Folder of a bundle.
        profile: Report of ``splitzoo profile encoder -o``.
        accuracy: Report of ``splitzoo profile accuracy -o``.
        family: Such reports of other models and of codecs, a file or a folder of them, for the R-D
            curve; by default the package's results on the same images.
    """

    bundle: str | Path | None
    profile: str | Path | None
    accuracy: str | Path | None
    family: str | Path | None


def gather(
    model: str | Path | None = None, *, repository: str = "", **sources: Unpack[CardSources]
) -> CardFacts:
    """Read the sources of a card and check that they are of the same model.

    Args:
        model: Registered name or folder of a saved model; by default the model of the others.
        repository: Repository on the Hub that the card is for.
        sources: What was made and measured of it.

    Raises:
        ReportError: The sources belong to different models, or the family was measured on other
            images.
        BundleError: The bundle cannot be read.
        UnknownNameError: No model has that name.
    """
    bundle, profile = sources.get("bundle"), sources.get("profile")
    accuracy, family = sources.get("accuracy"), sources.get("family")
    source = ModelSource.of(model) if model else None
    manifest = open_bundle(Path(bundle)).manifest if bundle else None
    report = read_report(Path(profile)) if profile else None
    evaluated = read_accuracy(Path(accuracy)) if accuracy else None
    specs = {
        "the model": source.spec() if source else None,
        "the bundle": spec_of(manifest) if manifest else None,
        "the profile": report.spec if report else None,
        "the accuracy report": evaluated.spec if evaluated else None,
    }
    named = {source: spec for source, spec in specs.items() if spec}
    check_one_spec(named)
    check_one_id(manifest, report, evaluated, bundle)
    spec = next(iter(named.values()), None) or ModelSource.of().spec()
    config = source.config() if source and source.folder else _packaged_config(spec)
    curve = _curve(evaluated, Path(family) if family else None)
    return CardFacts(spec, manifest, report, config, evaluated, curve, repository)


def _curve(report: AccuracyReport | None, family: Path | None) -> tuple[RdPoint, ...]:
    """Return the points beside a report: of a family's reports, or of the package's rows."""
    if family is None:
        return tuple(points_of_rows(package_rows(), report)) if report else ()
    if report is None:
        raise ReportError(
            "Nothing says where the model lies among its family.",
            next_step="Give its report too: --accuracy JSON",
        )
    from ..profile.rows import read_reports

    reports, _ = read_reports([family])
    if other := next((one for one in reports if one.data.sha256 != report.data.sha256), None):
        raise ReportError(
            f"{other.spec.name} in {family} was measured on other images than {report.spec.name}."
        )
    return tuple(points_of_reports(reports, report))


def check_one_spec(named: Mapping[str, ModelSpec]) -> None:
    """Raise ``ReportError`` where the specs of a card's sources differ."""
    if any(spec != next(iter(named.values())) for spec in named.values()):
        said = ", ".join(f"{source} is {spec.name}" for source, spec in named.items())
        raise ReportError(f"A card describes one model, but {said}: their specs differ.")


def check_one_id(
    manifest: Manifest | None,
    report: EncoderProfile | None,
    evaluated: AccuracyReport | None,
    bundle: str | Path | None = None,
) -> None:
    """Raise ``ReportError`` where a card's sources are of other weights."""
    for other, command in ((report, "encoder"), (evaluated, "accuracy")):
        if manifest and other and manifest.provenance.model_id != other.model_id:
            raise ReportError(
                f"The bundle holds other weights ({manifest.provenance.model_id}) than profile "
                f"{command} measured ({other.model_id}).",
                next_step=f"Measure the bundle: splitzoo profile {command} {bundle or 'BUNDLE'} -o "
                "report.json",
            )
    if report and evaluated and report.model_id != evaluated.model_id:
        raise ReportError(
            f"The profile measured other weights ({report.model_id}) than the accuracy report "
            f"({evaluated.model_id})."
        )


def _packaged_config(spec: ModelSpec) -> ModelConfig | None:
    folder = packaged_folder(spec.name)
    config = read_config(folder) if folder is not None else None
    return config if config and config.spec == spec else None


def render(facts: CardFacts) -> ModelCard:
    """Render a card; it shows only what was measured."""
    spec, manifest = facts.spec, facts.manifest
    trained = facts.weights == "trained"
    evaluated = facts.accuracy if trained else None
    data = ModelCardData(
        model_name=spec.name if evaluated else None,
        eval_results=_eval_results(evaluated) if evaluated else None,
        library_name="splitzoo",
        pipeline_tag=spec.task,
        license=_licence(facts),
        tags=[
            "split-computing",
            "supervised-compression",
            "entropy-coding",
            spec.method,
            spec.bottleneck.kind,
            *(["random-weights"] if facts.weights == "random" else []),
        ],
        # Random weights come from neither a base model nor a data set.
        base_model=spec.base_model if trained and spec.base_model else None,
        datasets=[spec.dataset] if trained and spec.dataset != "custom" else None,
    )
    # ModelCard.from_template would leave a name that the template misspells out, without a word.
    values = {
        "card_data": Markup(data.to_yaml()),
        "facts": facts,
        "spec": spec,
        "manifest": manifest,
        "target_words": Markup(_target_words(manifest)),
        "profile": facts.profile,
        "accuracy": facts.accuracy,
        "evaluated": evaluated,
        "metrics": NAMES,
        "format_size": format_size,
        "training": facts.config.training if trained and facts.config else None,
        "calibration": facts.calibration,
        "stages": stages_of(spec.name),
        "drawings": (SPLIT_NAME, CURVE_NAME),
        "rates": facts.rates,
        "series": len({point.series for point in facts.curve}),
        "hollow": any(
            point.coding and (point.models, "") in {(one.models, one.coding) for one in facts.curve}
            for point in facts.curve
        ),
        "told": _TOLD[spec.task].format(f"{spec.num_classes:,}"),
        "margin": _margin(evaluated) if evaluated else None,
        "licence": _LICENCES[data.license],
        "package": WEIGHT_PACKAGES.get(spec.backbone) if spec.name in packaged() else None,
        "about": about,
        "citation": bibtex(facts),
        "edge_part": f"{spec.backbone} after {spec.cut}" if spec.cut else f"all of {spec.backbone}",
        "output": _OUTPUTS[spec.task].format(spec.num_classes),
        "sources": [*map(Markup, list_sources(spec))],
        "lossless": manifest is None or CODERS[manifest.coding.kind].lossless,
    }
    return ModelCard(fill_in(_TEMPLATE, values).removesuffix("\n"))


def _licence(facts: CardFacts) -> str | None:
    """Return the licence of a model's weights; None where parts of others keep their own."""
    spec = facts.spec
    if facts.weights == "random":
        return "mit"
    package = WEIGHT_PACKAGES.get(spec.backbone)
    if is_assembled(spec):
        whole = spec.task == "image-classification" and spec.bottleneck.kind != "neural-input-codec"
        return package.licence if package and whole else None
    return package.licence if package else "mit"


def _margin(report: AccuracyReport) -> float | None:
    """Return half the 95% interval of a top-1, a share by the normal approximation; else None."""
    if report.metric != "top1" or not report.data.images:
        return None
    return 1.96 * math.sqrt(report.score * (1 - report.score) / report.data.images)


def _target_words(manifest: Manifest | None) -> str:
    return TARGETS.get(manifest.target).page(manifest).strip() if manifest else ""


def _eval_results(report: AccuracyReport) -> list[EvalResult]:
    """Return the scores in the form of the Hub's ``model-index``."""
    data = f"{report.data.folder}, {report.data.images} images"
    measured = [(name, NAMES[name], round(score, 6)) for name, score in report.scores.items()]
    measured.append(("stream_bytes", "bytes per image", round(report.stream_bytes.mean, 1)))
    return [
        EvalResult(
            task_type=report.spec.task,
            dataset_type=report.spec.dataset,
            dataset_name=data,
            dataset_split=report.data.folder,
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for kind, name, value in measured
    ]


def read(path: str | Path) -> ModelCard:
    """Read a card.

    Raises:
        ReportError: The file cannot be read, or its front matter is not valid.
    """
    try:
        return ModelCard(Path(path).read_text(encoding="utf-8"), ignore_metadata_errors=False)
    except (OSError, ValueError, YAMLError) as error:
        raise ReportError(f"Cannot read the card {path}: {error}") from error
