"""Parts of the site that are not pages: figures, the gallery, and every command's ``--help``."""

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CARDS = ROOT / "cards" / "generated"
COMMANDS = "<!-- commands -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the figures that pages show, and the gallery of the carried models."""
    from splitzoo.cards.gallery.site import build_gallery

    for path in sorted(RESULTS.glob("*/figure/*.png")):
        name = path.name.replace("tradeoff", path.parents[1].name)  # of the family
        files.append(File.generated(config, f"figure/{name}", abs_src_path=str(path)))
    with tempfile.TemporaryDirectory() as folder:
        site = build_gallery([CARDS], Path(folder, "gallery")).parent
        for path in sorted(site.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                files.append(File.generated(config, name, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the commands' help where a page asks for it."""
    if COMMANDS not in markdown:
        return markdown
    import typer.main
    from typer.cli import get_docs_for_click

    from splitzoo.cli import app

    command = typer.main.get_command(app)
    context = command.make_context("splitzoo", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="splitzoo")
    return markdown.replace(COMMANDS, text.partition("\n")[2])  # without its own title
