"""Write a card, its record and its images into a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from splitrun.errors import ReportError
from splitrun.files import check_free, new_file, new_folder

from ..zoo.hub_push import CARD_NAME
from .card import CardFacts, CardSources, gather, render
from .curve import draw_curve
from .diagram import draw_split
from .measurements import read_measurements
from .record import RECORD_NAME, CardRecord, read_record


def build(
    folder: str | Path | None = None,
    model: str | Path | None = None,
    *,
    repository: str = "",
    force: bool = False,
    **sources: Unpack[CardSources],
) -> Path:
    """Write a card and its images into a folder, whole or not at all.

    Args:
        folder: Folder to write, without force empty or new; by default ``MODEL-card``.
        model: Registered name or folder of a saved model; by default the model of the others.
        repository: Repository on the Hub that the card is for.
        force: Replace the card that the folder holds.
        sources: What was made and measured of it.

    Returns:
        The path of the card.

    Raises:
        OutputError: The folder is taken or cannot be written.
        ReportError: The sources belong to different models.
    """
    if folder is not None:
        check_free(Path(folder), force=force)
    facts = gather(model, repository=repository, **sources)
    folder = Path(folder or f"{facts.spec.name}-card")
    with new_folder(folder, force=force) as temporary:
        write_card(facts, temporary)
    return folder / CARD_NAME


def write_card(facts: CardFacts, folder: Path) -> None:
    """Write a card, its record and its images; the folder is there."""
    draw_split(facts.spec, facts.profile, folder, accuracy=facts.accuracy)
    if facts.accuracy and facts.curve:
        draw_curve(facts.curve, facts.accuracy, folder)
    write_texts(facts, folder)


def add_measurement(card: str | Path, file: str | Path) -> Path:
    """Add what a machine measured to a card's table of machines.

    What the same machine and engine measured of the same half before is replaced.

    Args:
        card: Card that :func:`build` wrote, or its folder.
        file: Output of ``splitrun bench --json``, or a bundle's ``engines/engine.json``.

    Returns:
        The path of the card.

    Raises:
        ReportError: The file is no measurement, or one of another model; or the card has no record.
    """
    folder = card_folder(card)
    facts = read_record(folder).facts()
    new = read_measurements(Path(file), facts.manifest, facts.model_id)
    taken = {(one.half, one.machine, one.engine, one.what) for one in new}
    kept = [
        one
        for one in facts.measurements
        if (one.half, one.machine, one.engine, one.what) not in taken
    ]
    write_texts(replace(facts, measurements=(*kept, *new)), folder)
    return folder / CARD_NAME


def card_folder(card: str | Path) -> Path:
    """Return the folder of a card.

    Raises:
        ReportError: There is none.
    """
    path = Path(card)
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / CARD_NAME).is_file():
        raise ReportError(
            f"There is no card at {path}.", next_step="Write one: splitzoo cards build -o DIR"
        )
    return folder


def write_texts(facts: CardFacts, folder: Path) -> None:
    """Write a card and its record; images are left as they are."""
    texts = {CARD_NAME: str(render(facts)), RECORD_NAME: CardRecord.of(facts).to_json()}
    for name, text in texts.items():
        with new_file(folder / name, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
