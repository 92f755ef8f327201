"""The cards of the carried models, from what lies beside them and from the reports.

``make cards`` measures: it leaves each model's manifest and profile beside its card. A card is
made of these again in seconds, and a test holds it against them.
"""

from pathlib import Path

from benchmarks.matrix.results_tables import report_of
from splitrun.errors import ReportError, SpecError
from splitrun.image_reading import read_rgb
from splitrun.manifest import read_manifest
from splitzoo import profile, zoo
from splitzoo.cards.card import CardFacts
from splitzoo.cards.record import RECORD_NAME, read_record
from splitzoo.cards.writing import write_card
from splitzoo.export.manifest import spec_of
from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.profile.bit_maps import draw_bit_maps
from splitzoo.profile.rd_points import points_of_rows
from splitzoo.profile.report import read_report
from splitzoo.zoo.config import read_config
from splitzoo.zoo.hub_push import BITS_NAME
from splitzoo.zoo.model_rows import package_rows
from splitzoo.zoo.packaged import packaged, packaged_folder

FOLDER = Path(__file__).parents[2] / "cards" / "generated"
PHOTOGRAPH = Path(__file__).parents[2] / "zoo" / "images" / "dandelion.jpg"
PROFILE_NAME = "profile.json"


def facts_of(name: str, folder: Path = FOLDER) -> CardFacts:
    """Return what a carried model's card is rendered from; no profile, where none lies there."""
    manifest, model = read_manifest(folder / name), packaged_folder(name)
    profile = folder / name / PROFILE_NAME
    # What machines measured is on the card alone.
    known = (folder / name / RECORD_NAME).is_file()
    measured = read_record(folder / name).measurements if known else ()
    report = report_of(name)
    evaluated = read_accuracy(report)
    return CardFacts(
        spec=spec_of(manifest),
        manifest=manifest,
        profile=read_report(profile) if profile.is_file() else None,
        config=read_config(model) if model else None,
        accuracy=evaluated,
        curve=tuple(points_of_rows(package_rows(), evaluated)),
        measurements=tuple(one for one in measured),
    )


def write_cards(folder: Path = FOLDER) -> None:
    """Write the cards of all carried models again.

    Raises:
        ReportError: A profile is missing: times are those that were measured, or the card is not
            written.
    """
    for name in packaged():
        facts = facts_of(name, folder)
        if facts.profile is None:
            missing = folder / name / PROFILE_NAME
            raise ReportError(f"{missing} is missing.", next_step="make family-cards")
        write_card(facts, folder / name)
        draw_bits(name, folder / name / BITS_NAME)


def draw_bits(name: str, path: Path) -> None:
    """Draw where the bits of the package's photograph go, if the payload depends on places."""
    model = zoo.load(name)
    try:
        found = profile.bits(model, PHOTOGRAPH)
    except SpecError:
        path.unlink(missing_ok=True)
        return
    draw_bit_maps(model.spec.preprocessing.pixels(read_rgb(PHOTOGRAPH)), found, None, path)
