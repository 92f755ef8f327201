"""Repeat every check on a finished bundle."""

from dataclasses import dataclass
from pathlib import Path

from ..documents import read_document
from ..errors import BundleError
from .manifest import Manifest
from .runtime.bundle import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    Bundle,
    open_bundle,
)
from .runtime.selftest import OUTPUT_TOLERANCE, TIE_MARGIN, SelfTest, run_selftest
from .targets import TARGETS

MAX_TIED = 0.01
"""Share of symbols that may lie on rounding boundaries; about 1 in 5,000 does."""


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
    manifest = read_document(
        Manifest,
        bundle.folder / MANIFEST_NAME,
        what="manifest",
        version_field="schema_version",
        supported=SCHEMA_VERSION,
        limit_bytes=MAX_MANIFEST_BYTES,
        error=BundleError,
        next_step="Copy or export the bundle again.",
    )
    return bundle, manifest


def verify_bundle(folder: str | Path) -> Verification:
    """Check schema, paths, hashes, graphs, tables and the self-test of a bundle.

    None of the bundle's own code is run.

    Raises:
        BundleError: A file is missing, changed, unlisted or not what it should be.
        ParityError: This machine computes something else than what was recorded.
    """
    bundle, manifest = read_manifest(folder)
    bundle.check_files()
    _refuse_lenient(manifest)
    target = TARGETS.get(manifest.target)
    for graph in bundle.graphs.values():
        target.check(graph.path)
    selftest = run_selftest(bundle)
    if selftest.symbols_tied > MAX_TIED * selftest.symbols:
        raise BundleError(
            f"The record lets {selftest.symbols_tied} of {selftest.symbols} symbols differ; "
            f"up to {MAX_TIED:.0%} can lie on rounding boundaries."
        )
    return Verification(manifest, len(bundle.files), selftest)


def _refuse_lenient(manifest: Manifest) -> None:
    """Refuse a bundle that judges itself by weaker rules than the exporter's."""
    parity, provenance = manifest.parity, manifest.provenance
    if parity.output_tolerance > OUTPUT_TOLERANCE or parity.tie_margin > TIE_MARGIN:
        raise BundleError(
            f"{MANIFEST_NAME} allows an output error of {parity.output_tolerance:g} and a tie "
            f"margin of {parity.tie_margin:g}; the exporter allows {OUTPUT_TOLERANCE:g} and "
            f"{TIE_MARGIN:g}."
        )
    if not provenance.model_sha256.startswith(manifest.coding.model_id):
        raise BundleError(f"{MANIFEST_NAME} is damaged: the stream id is not of the model.")
