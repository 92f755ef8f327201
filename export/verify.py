"""Repeat every check on a finished bundle."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..errors import BundleError
from .manifest import Manifest
from .runtime.bundle import MANIFEST_NAME, Bundle, open_bundle
from .runtime.selftest import SelfTest, run_selftest
from .targets import TARGETS


@dataclass(frozen=True)
class Verification:
    """What was verified.

    Attributes:
        manifest: Valid against its schema.
        files: Whose SHA-256 agrees.
        selftest: On this machine, with the record that PyTorch left.
    """

    manifest: Manifest
    files: int
    selftest: SelfTest


def read_manifest(folder: str | Path) -> tuple[Bundle, Manifest]:
    """Open a bundle and hold all of its manifest to the schema.

    Raises:
        BundleError: It is missing, damaged or newer.
    """
    bundle = open_bundle(Path(folder))
    try:
        text = (bundle.folder / MANIFEST_NAME).read_text(encoding="utf-8")
        return bundle, Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{MANIFEST_NAME} is damaged: {where}: {first['msg']}.") from error


def verify_bundle(folder: str | Path) -> Verification:
    """Check schema, paths, hashes, graphs, tables and the self-test of a bundle.

    None of the bundle's own code is run.

    Raises:
        BundleError: A file is missing, changed, unlisted or not what it should be.
        ParityError: This machine computes something else than what was recorded.
    """
    bundle, manifest = read_manifest(folder)
    bundle.check_files()
    target = TARGETS.get(manifest.target)
    target.check(bundle.device.path)
    target.check(bundle.edge.path)
    return Verification(manifest, len(bundle.files), run_selftest(bundle))
