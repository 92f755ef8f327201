"""The page that lies in a bundle: how to run it where it is."""

from dataclasses import fields
from pathlib import Path

from jinja2 import StrictUndefined, Template

from splitrun.coding import CODERS
from splitrun.manifest import Manifest

from .targets import TARGETS

_TEMPLATE = Path(__file__).with_name("readme.md.jinja")


def bundle_readme(manifest: Manifest) -> str:
    """Render a bundle's ``README.md`` from its manifest."""
    template = Template(
        _TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    values = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    return template.render(
        values,
        lossless=CODERS[manifest.coding.kind].lossless,
        target_words=target_words(manifest),
    )


def target_words(manifest: Manifest) -> str:
    """Return what there is to say of a bundle's target, as Markdown; often nothing."""
    return TARGETS.get(manifest.target).page(manifest).strip()
