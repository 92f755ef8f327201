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
from ..zoo.catalog import DEFAULT_MODEL, get_spec
from ..zoo.spec import ModelSpec
from .picture import draw_split

CARD_NAME = "README.md"
PICTURE_NAME = "split.png"
_TEMPLATE = Path(__file__).with_name("card.md.jinja")


@dataclass(frozen=True)
class CardFacts:
    """All that a card is rendered from.

    Attributes:
        spec: What the model is.
        manifest: Of its bundle, if one was made.
        profile: Of its encoder, if one was measured.
    """

    spec: ModelSpec
    manifest: Manifest | None
    profile: EncoderProfile | None

    @property
    def weights(self) -> str:
        """``"random"``, ``"trained"``, or empty where nothing says."""
        if self.profile:
            return self.profile.weights
        return self.manifest.provenance.weights if self.manifest else ""

    @property
    def source(self) -> str:
        """What loads the model: a name or a folder."""
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
        return self.manifest.provenance.seed if self.manifest else None


def gather_facts(
    model: str | None = None, *, bundle: Path | None = None, profile: Path | None = None
) -> CardFacts:
    """Read the sources of a card and see that they speak of the same model.

    Args:
        model: A registered name or a saved model's folder; by default what the others name.
        bundle: A bundle's folder.
        profile: A report of ``splitzoo profile encoder -o``.

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
    return CardFacts(spec, manifest, report)


def render_card(facts: CardFacts) -> ModelCard:
    """Render the card; what was not measured is not on it."""
    spec = facts.spec
    trained = facts.weights == "trained"
    data = ModelCardData(
        library_name="splitzoo",
        pipeline_tag=spec.task,
        license="mit",
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
        manifest=facts.manifest,
        profile=facts.profile,
        picture=PICTURE_NAME,
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
    model: str | None = None,
    *,
    bundle: str | Path | None = None,
    profile: str | Path | None = None,
) -> Path:
    """Write a card and its picture into a folder, whole or not at all.

    Args:
        folder: To write; it must not exist, or be empty.
        model: See :func:`gather_facts`; so for the others.
        bundle: A bundle's folder.
        profile: A report.

    Returns:
        The path of the card.

    Raises:
        OutputError: The folder is taken or cannot be written.
        ReportError: The sources belong to different models.
    """
    folder = Path(folder)
    refuse_taken(folder)
    facts = gather_facts(
        model, bundle=Path(bundle) if bundle else None, profile=Path(profile) if profile else None
    )
    with new_folder(folder) as temporary:
        draw_split(facts.spec, facts.profile, temporary / PICTURE_NAME)
        (temporary / CARD_NAME).write_text(str(render_card(facts)), encoding="utf-8")
    return folder / CARD_NAME
