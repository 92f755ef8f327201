"""A Hugging Face model card from what was measured: a bundle's manifest and a profile's report."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from yaml import YAMLError

from ..errors import ReportError
from ..export.manifest import Manifest
from ..export.verify import read_manifest
from ..files import new_folder, refuse_taken
from ..profile.report import EncoderProfile, read_report
from ..zoo.catalog import DEFAULT_MODEL, get_spec, is_assembled
from ..zoo.coding import CODERS
from ..zoo.config import ModelConfig, read_config
from ..zoo.hub_push import CARD_NAME, PICTURE_NAME
from ..zoo.source import as_folder
from ..zoo.spec import ModelSpec
from .picture import draw_split
from .sources import list_sources

_ANSWERS = {
    "image-classification": "logits (N, {}) float32",
    "object-detection": "boxes, labels and scores of {} classes, for each image",
    "semantic-segmentation": "logits (N, {}, H, W) float32",
}
_TEMPLATE = Path(__file__).with_name("card.md.jinja")


@dataclass(frozen=True)
class CardFacts:
    """All that a card is rendered from.

    Attributes:
        spec: What the model is.
        manifest: Of its bundle, if one was made.
        profile: Of its encoder, if one was measured.
        config: Of its saved folder, if it is one.
        repository: That it is published in, if it is.
    """

    spec: ModelSpec
    manifest: Manifest | None
    profile: EncoderProfile | None
    config: ModelConfig | None = None
    repository: str = ""

    @property
    def weights(self) -> str:
        """``"random"``, ``"trained"``, or empty where nothing says."""
        if self.profile:
            return self.profile.weights
        if self.manifest:
            return self.manifest.provenance.weights
        if self.config:
            return "trained" if self.config.random_seed is None else "random"
        return ""

    @property
    def source(self) -> str:
        """What loads the model: a name, a folder or a repository."""
        if self.repository:
            return self.repository
        if self.profile:
            return self.profile.source
        return self.manifest.provenance.source if self.manifest else self.spec.name

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
        """Of random weights."""
        if self.profile:
            return self.profile.seed
        if self.manifest:
            return self.manifest.provenance.seed
        return self.config.random_seed if self.config else None


def gather_facts(
    model: str | Path | None = None,
    *,
    bundle: Path | None = None,
    profile: Path | None = None,
    repository: str = "",
) -> CardFacts:
    """Read the sources of a card and see that they speak of the same model.

    Args:
        model: A registered name or a saved model's folder; by default what the others name.
        bundle: A bundle's folder.
        profile: A report of ``splitzoo profile encoder -o``.
        repository: On the Hub, that the card is for.

    Raises:
        ReportError: The sources belong to different models.
        BundleError: The bundle cannot be read.
        UnknownNameError: No model has that name.
    """
    manifest = read_manifest(bundle)[1] if bundle else None
    report = read_report(profile) if profile else None
    specs = {
        "the model": get_spec(model) if model else None,
        "the bundle": manifest.spec if manifest else None,
        "the profile": report.spec if report else None,
    }
    named = {source: spec for source, spec in specs.items() if spec}
    if any(spec != next(iter(named.values())) for spec in named.values()):
        said = ", ".join(f"{source} is {spec.name}" for source, spec in named.items())
        raise ReportError(f"A card is of one model, but {said}: their specs differ.")
    if manifest and report and manifest.coding.model_id != report.model_id:
        raise ReportError(
            f"The bundle holds other weights ({manifest.coding.model_id}) than the profile "
            f"measured ({report.model_id}).",
            next_step=f"Profile the bundle: splitzoo profile encoder {bundle} -o {profile}",
        )
    spec = next(iter(named.values()), None) or get_spec(DEFAULT_MODEL)
    folder = as_folder(model) if model else None
    config = read_config(folder) if folder else None
    return CardFacts(spec, manifest, report, config, repository)


def render_card(facts: CardFacts) -> ModelCard:
    """Render the card; what was not measured is not on it."""
    spec, manifest = facts.spec, facts.manifest
    trained = facts.weights == "trained"
    data = ModelCardData(
        library_name="splitzoo",
        pipeline_tag=spec.task,
        # Parts that others published keep the licences that those gave them.
        license=None if is_assembled(spec) and facts.weights != "random" else "mit",
        tags=[
            "split-computing",
            "supervised-compression",
            "entropy-coding",
            spec.method,
            spec.bottleneck.kind,
            *(["random-weights"] if facts.weights == "random" else []),
        ],
        # What random weights were not made from must not be claimed.
        base_model=spec.base_model if trained and spec.base_model else None,
        datasets=[spec.dataset] if trained else None,
    )
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        facts=facts,
        spec=spec,
        manifest=manifest,
        profile=facts.profile,
        picture=PICTURE_NAME,
        edge_part=f"{spec.backbone} after {spec.cut}" if spec.cut else f"all of {spec.backbone}",
        answer=_ANSWERS[spec.task].format(spec.num_classes),
        sources=list_sources(spec),
        lossless=manifest is None or CODERS[manifest.coding.kind].lossless,
    )


def read_card(path: Path) -> ModelCard:
    """Read a card.

    Raises:
        ReportError: It cannot be read, or its front matter is not valid.
    """
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=False)
    except (OSError, ValueError, YAMLError) as error:
        raise ReportError(f"Cannot read the card {path}: {error}") from error


def build_card(
    folder: str | Path,
    model: str | Path | None = None,
    *,
    bundle: str | Path | None = None,
    profile: str | Path | None = None,
    repository: str = "",
) -> Path:
    """Write a card and its picture into a folder, whole or not at all.

    Args:
        folder: To write; it must not exist, or be empty.
        model: See :func:`gather_facts`; so for the others.
        bundle: A bundle's folder.
        profile: A report.
        repository: On the Hub, that the card is for.

    Returns:
        The path of the card.

    Raises:
        OutputError: The folder is taken or cannot be written.
        ReportError: The sources belong to different models.
    """
    folder = Path(folder)
    refuse_taken(folder)
    facts = gather_facts(
        model,
        bundle=Path(bundle) if bundle else None,
        profile=Path(profile) if profile else None,
        repository=repository,
    )
    with new_folder(folder) as temporary:
        draw_split(facts.spec, facts.profile, temporary / PICTURE_NAME)
        (temporary / CARD_NAME).write_text(str(render_card(facts)), encoding="utf-8")
    return folder / CARD_NAME
