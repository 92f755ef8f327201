"""Write the site: its table and plots, a page for each model, and what they load."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from splitrun.errors import DependencyError
from splitrun.files import new_folder

from ... import __version__
from ...zoo.hub_push import BITS_NAME, CARD_NAME, DRAWINGS
from ...zoo.metrics import NAMES
from ...zoo.model_rows import ModelRow, package_rows
from ..card import read
from .entries import Entry, read_entries, rows_of
from .libraries import libraries

_HERE = Path(__file__).parent
_TEXTS = ("gallery.css", "gallery.js")
_IMAGES = (*DRAWINGS, BITS_NAME)
_TAGS = {
    *("a", "b", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "hr", "img", "li", "ol"),
    *("p", "picture", "pre", "source", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
_ATTRIBUTES = {
    "a": {"href"},
    "img": {"alt", "src"},
    "source": {"media", "srcset"},
    "td": {"style"},
    "th": {"style"},
}


def build_gallery(
    folders: Iterable[str | Path],
    output: str | Path,
    *,
    rows: Sequence[ModelRow] | None = None,
    force: bool = False,
) -> Path:
    """Write the gallery of the cards in folders; no page of it makes a request.

    Args:
        folders: Folders of cards, at any depth.
        output: Folder to write, without force empty or new.
        rows: Rows of results to draw beside the models; by default the package's.
        force: Replace the gallery that the folder holds.

    Returns:
        The path of its first page.

    Raises:
        ReportError: There is no card, two are of one model, or one cannot be read.
        OutputError: The folder is taken or cannot be written.
        DependencyError: The extra ``gallery`` is not installed.
    """
    entries = read_entries([*map(Path, folders)])
    known = rows_of(entries, package_rows() if rows is None else rows)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(_HERE)
    )
    environment.globals |= {"metrics": NAMES, "version": __version__}
    with new_folder(Path(output), force=force) as site:
        for name, text in (libraries() | {one: _text(one) for one in _TEXTS}).items():
            (site / name).write_text(text, encoding="utf-8")
        page = environment.get_template("index.html.jinja")
        (site / "index.html").write_text(page.render(_index(entries, known)), encoding="utf-8")
        page = environment.get_template("model.html.jinja")
        for entry in entries:
            place = site / "models" / entry.page
            place.mkdir(parents=True)
            for image in _IMAGES:
                if (entry.folder / image).is_file():
                    shutil.copyfile(entry.folder / image, place / image)
            text = page.render(_model(entry, entries))
            (place / "index.html").write_text(text, encoding="utf-8")
    return Path(output) / "index.html"


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _index(entries: Sequence[Entry], rows: Sequence[ModelRow]) -> dict[str, Any]:
    pages = {entry.facts.model_id: f"models/{entry.page}/index.html" for entry in entries}
    points = [
        row.model_dump(mode="json")
        | {"page": pages.get(row.model_id, ""), "metric_name": NAMES.get(row.metric, row.metric)}
        for row in rows
    ]
    machines = list(dict.fromkeys(name for entry in entries for name in entry.latencies))
    return {"entries": entries, "points": points, "machines": machines}


def _model(entry: Entry, entries: Sequence[Entry]) -> dict[str, Any]:
    shared = [
        other
        for other in entries
        if other is not entry and other.device_sha256 and other.device_sha256 == entry.device_sha256
    ]
    return {
        "entry": entry,
        "shared": shared,
        "card": _card(entry.folder / CARD_NAME),
        "bits": (entry.folder / BITS_NAME).is_file(),
    }


def _card(path: Path) -> Markup:
    """Return a card as HTML: its Markdown's, of which only harmless tags are left."""
    try:
        import nh3
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"The gallery needs {error.name}.", next_step="pip install 'splitzoo[gallery]'"
        ) from error
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(read(path).text)
    return Markup(
        nh3.clean(
            html,
            tags=_TAGS,
            attributes=_ATTRIBUTES,
            url_schemes={"http", "https"},
            filter_style_properties={"text-align"},
        )
    )
