"""The page of runtimes: which may be mixed between device and edge."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.matrix.comparison import Difference, RuntimeComparison
from benchmarks.matrix.page import made_here, table_line
from splitzoo import __version__

_CONFIDENT = 3
"""Where none of n is lost, fewer than three in n would be, at 95% confidence."""


def render_runtimes(
    comparisons: Sequence[RuntimeComparison], *, synthetic: bool, command: str
) -> str:
    """Render tables of all models as Markdown, with the conclusions that follow from them.

    Args:
        comparisons: One comparison for each model.
        synthetic: Whether synthetic images were compared.
        command: Command line that made the page.
    """
    kind = "synthetic images" if synthetic else "images"
    lines = [
        "# Runtimes compared",
        "",
        "May the device run one runtime, and the edge another? The same "
        f"{kind} went through both halves of each runtime, and all integers were compared. With a "
        "factorized prior, the edge decodes the symbols that were sent, whatever computed them. "
        "With a hyperprior, it computes the scale indexes of y again, from the symbols of z that "
        "it received: where an index differs from the device's, the image is lost.",
        "",
        *(f"- {conclude(comparison)}" for comparison in comparisons),
        "",
    ]
    for comparison in comparisons:
        lines += _model(comparison, kind)
    engines = dict.fromkeys(
        runtime.version for comparison in comparisons for runtime in comparison.runtimes
    )
    made = f"Made by `{command}` with splitzoo {__version__}, {', '.join(engines)}, {made_here()}."
    lines += [made, ""]
    return "\n".join(lines)


def conclude(comparison: RuntimeComparison) -> str:
    """Say in one sentence what the figures allow to be mixed."""
    exact = {runtime.name for runtime in comparison.runtimes if runtime.precision == "fp32"}
    pairs = [pair for pair in comparison.symbols if {pair.first, pair.second} <= exact]
    who = f"`{comparison.model}`"
    if not pairs:
        return f"{who}: no other runtime could be compared."
    differing, count = sum(pair.differing for pair in pairs), sum(pair.count for pair in pairs)
    symbols = (
        f"between fp32 runtimes {differing:,} of {count:,} symbols differ"
        + f", by up to {max(pair.largest for pair in pairs)}" * bool(differing)
    )
    if not comparison.scales:
        return (
            f"{who}: any device half and any edge half may be mixed, because the edge "
            f"computes no scale indexes; {symbols}."
        )
    engines = {runtime.name: runtime.engine for runtime in comparison.runtimes}
    mixed = [pair for pair in comparison.scales if engines[pair.first] != engines[pair.second]]
    lost = [pair for pair in mixed if pair.images]
    own = sum(pair.images for pair in comparison.scales) - sum(pair.images for pair in lost)
    itself = f"a runtime with itself loses {own or 'none'}; {symbols}"
    if not lost:
        return (
            f"{who}: all {len(mixed)} pairs of two runtimes gave the same scale indexes on "
            f"all {comparison.images} images. They may be mixed (95% confidence: under one image "
            f"in {max(1, comparison.images // _CONFIDENT):,} would be lost); {itself}."
        )
    worst = max(lost, key=lambda pair: pair.images)
    return (
        f"{who}: **do not mix**: of {len(mixed)} pairs of two runtimes, {len(lost)} would lose "
        f"images, {worst.first} on the device with {worst.second} on the edge {worst.images} of "
        f"{comparison.images}; {itself}."
    )


def _model(comparison: RuntimeComparison, kind: str) -> Iterable[str]:
    weights = "trained" if comparison.trained else "random"
    yield f"## `{comparison.model}`"
    yield ""
    yield f"{comparison.bottleneck}, {weights} weights, {comparison.images} {kind}."
    yield ""
    names = [runtime.name for runtime in comparison.runtimes]
    for tensor in dict.fromkeys(pair.tensor for pair in comparison.symbols):
        pairs = {
            (pair.first, pair.second): pair for pair in comparison.symbols if pair.tensor == tensor
        }
        total = next(iter(pairs.values())).count
        yield f"`{tensor}`: how many of {total:,} differ, and by how much where it is more than 1."
        yield ""
        yield from _table("", names[:-1], names[1:], pairs, _differing)
    if comparison.scales:
        pairs = {(pair.first, pair.second): pair for pair in comparison.scales}
        edges = list(dict.fromkeys(pair.second for pair in comparison.scales))
        total = next(iter(pairs.values())).count
        yield (
            f"Scale indexes, from the device's z on both sides: how many of {total:,} differ, and "
            f"how many of {comparison.images} images would be lost."
        )
        yield ""
        yield from _table("device ↓ edge →", names, edges, pairs, _lost)
    for name, reason in comparison.not_compared.items():
        yield f"{name} is not compared. {reason}"
        yield ""


def _table(
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    pairs: Mapping[tuple[str, str], Difference],
    said: Callable[[Difference], str],
) -> Iterable[str]:
    yield table_line((corner, *columns))
    yield table_line(("---", *("---:" for _ in columns)))
    for row in rows:
        cells = (pairs.get((row, column)) for column in columns)
        yield table_line((row, *(said(pair) if pair else "" for pair in cells)))
    yield ""


def _differing(pair: Difference) -> str:
    return f"{pair.differing:,}" + f" (≤ {pair.largest})" * (pair.largest > 1)


def _lost(pair: Difference) -> str:
    return f"{pair.differing:,}; {pair.images} lost" if pair.differing else "0"
