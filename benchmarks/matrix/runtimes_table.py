"""The page of runtimes: which may be mixed between device and edge."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from benchmarks.matrix.comparison import Crossing, Difference, RuntimeComparison
from benchmarks.matrix.page import made_here, table_line
from splitzoo import __version__

Pair = TypeVar("Pair", Difference, Crossing)


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
        f"{kind} went through the device half of each runtime, their streams through each edge "
        "half, and what was received was compared with what was sent, bit by bit. With a "
        "factorized prior, the edge decodes the symbols that were sent, whatever computed them. "
        "With a hyperprior, both sides compute the scale indexes of y from the symbols of z, in "
        "integers: the same everywhere.",
        "",
        "What was run: each device half, in a process of its own, made one stream of each image. "
        "Images went in groups of eight, and the groups through all settings: one image at a time "
        "and eight, with one, two and four threads, the device's and the edge's independently; "
        "one group in seven was coded by the plain-Python coder on the device and read by "
        "constriction on the edge, another the other way round, the rest by constriction on both. "
        "Each edge half, in a process of its own, read the streams of all device halves, those "
        "that are the same byte by byte once, and ran its graph on some of the latents that came "
        "out, alone or eight together. Edge graphs in int8 were made for this table, as those of "
        "devices are; `splitzoo export split` writes edge halves in fp32.",
        "",
        *(f"- {conclude(comparison)}" for comparison in comparisons),
        "",
    ]
    for comparison in comparisons:
        lines += _model(comparison, kind)
    engines = dict.fromkeys(
        runtime.version
        for comparison in comparisons
        for runtime in comparison.runtimes
        if runtime.version  # none is known of an engine whose edge half ended early
    )
    made = f"Made by `{command}` with splitzoo {__version__}, {', '.join(engines)}, {made_here()}."
    most = max((one.images for one in comparisons), default=0)
    fewer = [
        f"`{one.model}` with `--most {one.images}`" for one in comparisons if one.images < most
    ]
    lines += [" ".join([made, *(f"{one}." for one in fewer)]), ""]
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
    lost = [pair for pair in comparison.crossings if pair.lost]
    crossed = len(comparison.crossings)
    if not lost:
        return (
            f"{who}: any device half and any edge half may be mixed: all {crossed} pairs read all "
            f"{comparison.images:,} images as they were sent; {symbols}."
        )
    worst = max(lost, key=lambda pair: pair.lost)
    return (
        f"{who}: **do not mix**: of {crossed} pairs, {len(lost)} lose images, {worst.device} on "
        f"the device with {worst.edge} on the edge {worst.lost:,} of {comparison.images:,}; "
        f"{symbols}."
    )


def _model(comparison: RuntimeComparison, kind: str) -> Iterable[str]:
    weights = "trained" if comparison.trained else "random"
    yield f"## `{comparison.model}`"
    yield ""
    height, width = comparison.side
    yield (
        f"{comparison.bottleneck}, {weights} weights, {comparison.images:,} {kind} of "
        f"{height}×{width}. Each edge half read {comparison.read:,} different streams, and ran its "
        f"graph on {comparison.run:,} latents."
    )
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
    crossings = {(pair.device, pair.edge): pair for pair in comparison.crossings}
    edges = list(dict.fromkeys(pair.edge for pair in comparison.crossings))
    yield f"Images lost, of {comparison.images:,}, from each device half to each edge half."
    yield ""
    yield from _table("device ↓ edge →", names, edges, crossings, lambda pair: f"{pair.lost:,}")
    for name, reason in comparison.not_compared.items():
        yield f"{name} is not compared. {reason}"
        yield ""


def _table(
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    pairs: Mapping[tuple[str, str], Pair],
    said: Callable[[Pair], str],
) -> Iterable[str]:
    yield table_line((corner, *columns))
    yield table_line(("---", *("---:" for _ in columns)))
    for row in rows:
        cells = (pairs.get((row, column)) for column in columns)
        yield table_line((row, *(said(pair) if pair else "" for pair in cells)))
    yield ""


def _differing(pair: Difference) -> str:
    return f"{pair.differing:,}" + f" (≤ {pair.largest})" * (pair.largest > 1)
