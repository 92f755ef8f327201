"""Repeat every check on a finished bundle."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from splitrun.bundle import open_bundle
from splitrun.bundle_layout import MANIFEST_NAME
from splitrun.coding import CODERS
from splitrun.errors import BundleError
from splitrun.halves import check_code, checked_graph
from splitrun.limits import limits_of
from splitrun.manifest import Manifest
from splitrun.selftest import SelfTest, run_selftest
from splitrun.strict_json import read_strictly

from .manifest import calibration_of, spec_of
from .running import LIMITS_OF_RUNS, RunLimits, call_runtime
from .targets import TARGETS

_ACCEPTED = ("changed", "difference", "wire_tolerance")
"""Limits that ``--accept`` widens for the device half; for the edge, ``output_tolerance``."""

MAX_TIED = 0.01
"""Share of symbols that may lie on rounding boundaries; about 1 in 5,000 does."""


@dataclass(frozen=True)
class Verification:
    """Result of verifying a bundle.

    Attributes:
        manifest: Manifest, valid against its schema.
        files: Number of files whose SHA-256 agrees.
        selftest: Self-test on this machine, with the record that PyTorch left.
    """

    manifest: Manifest
    files: int
    selftest: SelfTest


def verify(
    folder: str | Path, *, trust: bool = False, limits: RunLimits = LIMITS_OF_RUNS
) -> Verification:
    """Check schema, paths, hashes, graphs, tables and the self-test of a bundle.

    None of the bundle's own code is run, unless its graphs hold code and are trusted.

    Args:
        folder: Folder of the bundle.
        trust: Run graphs of any operators and of formats that can hold code, without limits.
        limits: Time and memory that the self-test may take.

    Raises:
        BundleError: A file is missing, changed, unlisted or not what it should be; a limit was
            reached; or a graph's format can hold code, and the bundle is not trusted.
        ParityError: This machine computes something else than what was recorded.
    """
    bundle = open_bundle(folder, trust=trust)
    manifest = bundle.manifest
    spec_of(manifest)
    calibration_of(manifest)
    bundle.check_files()
    _check_limits(manifest)
    formats = TARGETS.get(manifest.target).formats
    for name, graph in bundle.graphs.items():
        if graph.engine not in formats:
            raise BundleError(
                f"The {name} graph is for {graph.engine}; a bundle for {manifest.target} has none."
            )
        path = checked_graph(bundle, graph)
        formats[graph.engine].check(path)
    if not trust:
        check_code(bundle)
    if trust:
        selftest = run_selftest(bundle, stand_in=True)
    else:
        found = call_runtime(bundle.folder, "selftest", "--stand-in", limits=limits)
        found.pop("passed")
        selftest = read_strictly(SelfTest, found)
    device = selftest.device
    if device and device.symbols_tied > MAX_TIED * device.symbols:
        raise BundleError(
            f"The record lets {device.symbols_tied} of {device.symbols} symbols differ; "
            f"up to {MAX_TIED:.0%} can lie on rounding boundaries."
        )
    return Verification(manifest, len(manifest.files), selftest)


def _check_limits(manifest: Manifest) -> None:
    """Refuse a bundle that judges itself by weaker rules than the exporter's."""
    limits, report = manifest.parity.limits, manifest.precision_report
    widened: set[str] = set(_ACCEPTED if report and report.accepted else ())
    reports = [tail.precision_report for tail in manifest.edge.tails.values()]
    accepted = max((2 * one.worst_error for one in reports if one and one.accepted), default=0.0)
    coder = CODERS.get(manifest.coding.kind)  # an unknown one is refused with its tables
    quantised = coder is not None and coder.is_quantised
    allowed = limits_of(manifest.precision, manifest.edge.precision, quantised=quantised)
    allowed = replace(allowed, output_tolerance=max(allowed.output_tolerance, accepted))
    for name, limit in asdict(allowed).items():
        found = getattr(limits, name)
        if found > limit and name not in widened:
            raise BundleError(
                f"{MANIFEST_NAME} allows {name.replace('_', ' ')} of {found:g}; "
                f"the exporter allows {limit:g} in {manifest.precisions}."
            )
    if not manifest.provenance.device_sha256.startswith(manifest.coding.stream_id):
        raise BundleError(f"{MANIFEST_NAME} is damaged: the stream id is not of the model.")
