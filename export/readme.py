"""The page that lies in a bundle: how to run it where it is."""

from pathlib import Path

from jinja2 import StrictUndefined, Template

from ..zoo.coding import CODERS
from .manifest import Manifest

_TEMPLATE = Path(__file__).with_name("readme.md.jinja")


def bundle_readme(manifest: Manifest) -> str:
    """Render a bundle's ``README.md`` from its manifest."""
    template = Template(
        _TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    values = {name: getattr(manifest, name) for name in Manifest.model_fields}
    return template.render(values, lossless=CODERS[manifest.coding.kind].lossless)
