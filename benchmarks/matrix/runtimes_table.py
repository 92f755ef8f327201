"""What may be mixed between device and edge, as a page: runtimes held against each other."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.matrix.comparison import Difference, RuntimeComparison
from benchmarks.matrix.page import made_here, table_line
from splitzoo import __version__

_CONFIDENT = 3
"""None of n seen: at 95% confidence, fewer than three in n."""


def render_runtimes(comparisons: Sequence[RuntimeComparison], *, images: bool, command: str) -> str:
    """Render tables of all models as Markdown, with the conclusion that the figures give.

    Args:
        comparisons: One for each model.
        images: What was compared on; False means made images.
        command: That made it.
    """
    kind = "images" if images else "made images"
    lines = [
        "# Runtimes held against each other",
        "",
        "May the device run one runtime, and the edge another? The same "
        f"{kind} went through the halves of each, and all integers were counted against each "
        "other. With a factorized prior, the edge decodes the symbols that were sent, whatever "
        "computed them. With a hyperprior, it computes the scale indexes of y anew, of the symbols "
        "of z that came: where one is another than the device's, the image is lost.",
        "",
        *(f"- {conclude(one)}" for one in comparisons),
        "",
    ]
    for one in comparisons:
        lines += _model(one, kind)
    engines = {runtime.version: None for one in comparisons for runtime in one.runtimes}
    made = f"Made by `{command}` with splitzoo {__version__}, {', '.join(engines)}, {made_here()}."
    lines += [made, ""]
    return "\n".join(lines)


def conclude(comparison: RuntimeComparison) -> str:
    """Say in one sentence what the figures allow to be mixed."""
    exact = {one.name for one in comparison.runtimes if one.precision == "fp32"}
    pairs = [one for one in comparison.symbols if {one.first, one.second} <= exact]
    who = f"`{comparison.model}`"
    if not pairs:
        return f"{who}: no other runtime could be compared."
    differing, count = sum(one.differing for one in pairs), sum(one.count for one in pairs)
    symbols = (
        f"between fp32 runtimes {differing:,} of {count:,} symbols differ"
        + f", by up to {max(one.largest for one in pairs)}" * bool(differing)
    )
    if not comparison.scales:
        return (
            f"{who}: any device half and any edge half may be mixed, as no scale indexes are "
            f"computed; {symbols}."
        )
    engines = {one.name: one.engine for one in comparison.runtimes}
    mixed = [one for one in comparison.scales if engines[one.first] != engines[one.second]]
    lost = [one for one in mixed if one.images]
    own = sum(one.images for one in comparison.scales) - sum(one.images for one in lost)
    itself = f"a runtime with itself loses {own or 'none'}; {symbols}"
    if not lost:
        return (
            f"{who}: all {len(mixed)} pairs of two runtimes gave the same scale indexes on "
            f"all {comparison.images} images. They may be mixed (95% confidence: under one image "
            f"in {max(1, comparison.images // _CONFIDENT):,} would be lost); {itself}."
        )
    worst = max(lost, key=lambda one: one.images)
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
    names = [one.name for one in comparison.runtimes]
    for tensor in dict.fromkeys(one.tensor for one in comparison.symbols):
        pairs = {(one.first, one.second): one for one in comparison.symbols if one.tensor == tensor}
        total = next(iter(pairs.values())).count
        yield f"`{tensor}`: how many of {total:,} differ, and by how much where it is more than 1."
        yield ""
        yield from _table("", names[:-1], names[1:], pairs, _differing)
    if comparison.scales:
        pairs = {(one.first, one.second): one for one in comparison.scales}
        edges = list(dict.fromkeys(one.second for one in comparison.scales))
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
        yield table_line((row, *(said(one) if one else "" for one in cells)))
    yield ""


def _differing(one: Difference) -> str:
    return f"{one.differing:,}" + f" (≤ {one.largest})" * (one.largest > 1)


def _lost(one: Difference) -> str:
    return f"{one.differing:,}; {one.images} lost" if one.differing else "0"
