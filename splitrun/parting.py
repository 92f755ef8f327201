"""Part a bundle: write one of its halves as a bundle of its own."""

import shutil
from dataclasses import replace
from pathlib import Path

from .bundle import Bundle
from .bundle_layout import REQUIREMENTS_NAME, Half
from .files import sha256_file
from .manifest import Manifest


def write_half(bundle: Bundle, half: Half, folder: Path) -> Manifest:
    """Write one half of a bundle: its graphs, record and requirements, and what both halves share.

    Args:
        bundle: Bundle that holds the half.
        half: Half to write.
        folder: Folder to write into.

    Returns:
        The manifest of the half, as written.

    Raises:
        BundleError: The half is not here, or a file of it is missing or was changed.
    """
    bundle.check_here(half)
    manifest = replace(bundle.manifest, halves=(half,), files={})
    left = {name for other in manifest.absent for name in manifest.files_of(other)}
    files = {name: digest for name, digest in bundle.manifest.files.items() if name not in left}
    for name in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.checked_path(name), target)
    requirements = folder / REQUIREMENTS_NAME
    requirements.write_text(manifest.requirements_text, encoding="utf-8")
    manifest = replace(manifest, files=files | {REQUIREMENTS_NAME: sha256_file(requirements)})
    manifest.write(folder)
    return manifest
