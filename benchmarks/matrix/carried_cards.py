"""The cards of the carried models, from what lies beside them and from the reports.

``make cards`` measures: it leaves each model's manifest and profile beside its card. A card is
made of these again in seconds, and a test holds it against them.
"""

import shutil
from pathlib import Path

from benchmarks.matrix.measures import RESULTS, report_of
from splitrun.errors import ReportError
from splitrun.files import new_file
from splitrun.manifest import read_manifest
from splitzoo.cards.card import CardFacts, render
from splitzoo.cards.diagram import draw_split
from splitzoo.export.manifest import spec_of
from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.profile.report import read_report
from splitzoo.zoo.config import read_config
from splitzoo.zoo.hub_push import CARD_NAME, FIGURES, IMAGE_NAME
from splitzoo.zoo.packaged import packaged, packaged_folder

FOLDER = Path(__file__).parents[2] / "cards" / "generated"
PROFILE_NAME = "profile.json"
FIGURE = RESULTS / "figure"


def facts_of(name: str, folder: Path = FOLDER) -> CardFacts:
    """Return what a carried model's card is rendered from; no profile, where none lies there."""
    manifest, model = read_manifest(folder / name), packaged_folder(name)
    profile = folder / name / PROFILE_NAME
    light, dark = (FIGURE / f"{figure}.png" for figure in FIGURES)
    return CardFacts(
        spec=spec_of(manifest),
        manifest=manifest,
        profile=read_report(profile) if profile.is_file() else None,
        config=read_config(model) if model else None,
        accuracy=read_accuracy(report_of(name)),
        figure=light,
        dark_figure=dark,
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
        for figure in (facts.figure, facts.dark_figure):
            if figure is not None:
                shutil.copyfile(figure, folder / name / figure.name)
        draw_split(facts.spec, facts.profile, folder / name / IMAGE_NAME, accuracy=facts.accuracy)
        with new_file(folder / name / CARD_NAME, force=True) as temporary:
            temporary.write_text(str(render(facts)), encoding="utf-8")
