"""Hold the flowers family against the bars and against the order of the SC2 paper's findings.

Reads the reports of ``flowers_family.py`` and writes ``benchmarks/results/flowers/findings.md``.

    python benchmarks/flowers_findings.py
"""

from pathlib import Path

from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.profile.tradeoffs import Point, Tradeoff, collect

RESULTS = Path(__file__).parent / "results" / "flowers"
STUDENT, HYPER, WHOLE = "Entropic Student, FP", "Entropic Student, MSHP", "PNG input"
STUDENTS = tuple(
    f"{name}{coding}" for coding in ("", ", context coding") for name in (STUDENT, HYPER)
)
CODECS = ("JPEG input", "WebP input")


def beaten(points: list[Point], by: list[Point], product: bool = False) -> str:
    """Say how many points another series has a point for that is no larger and scores no less."""

    def size(one: Point) -> float:
        return (one.exrd or 0) if product else one.data_bytes

    count = sum(
        any(size(other) <= size(one) and other.score >= one.score for other in by) for one in points
    )
    return f"{count} of {len(points)}"


def findings(found: Tradeoff) -> list[str]:
    series = found.series()
    (teacher,) = series[WHOLE]
    students = [one for name in STUDENTS for one in series.get(name, ())]
    best = max(students, key=lambda one: (one.score, -one.data_bytes))
    lines = [
        "# The flowers family: bars and findings",
        "",
        f"{found.images} validation images; by `python benchmarks/flowers_findings.py` from "
        "the reports beside this file.",
        "",
        "## Bars",
        "",
        f"- Teacher: {teacher.score:.2%} top-1 ({round(teacher.score * found.images)} of "
        f"{found.images}), {teacher.data_bytes:,.0f} bytes as PNG. Bar: 80%.",
        f"- Best Entropic Student ({best.series}, {best.setting}): {best.score:.2%}, "
        f"{100 * (teacher.score - best.score):.2f} points below the teacher, "
        f"{best.data_bytes:,.0f} bytes. Bar: within 2.0 points.",
    ]
    for one in sorted(students, key=lambda one: one.data_bytes):
        equal = [
            other for name in CODECS for other in series[name] if other.score >= one.score - 0.01
        ]
        if equal:
            codec = min(equal, key=lambda other: other.data_bytes)
            lines.append(
                f"- {one.series}, {one.setting}: {one.score:.2%} at {one.data_bytes:,.0f} bytes; "
                f"the smallest JPEG or WebP within a point or better is {codec.series} "
                f"{codec.setting}, {codec.score:.2%} at {codec.data_bytes:,.0f} bytes: "
                f"{one.data_bytes / codec.data_bytes:.2f} of it. Bar: a third, for one of them."
            )
    lines += ["", "## The paper's findings", ""]
    for name in ("end to end, FP", "CR + BQ", HYPER):
        if name not in series:
            lines.append(f"- {name}: no model of it has been evaluated yet.")
        elif name != HYPER:
            lines.append(
                f"- R-D, Entropic Student above {name}: "
                f"{beaten(series[name], series[STUDENT])} of its points are beaten by one of the "
                f"Entropic Students', {beaten(series[STUDENT], series[name])} the other way."
            )
    layers = {
        name: points
        for name, points in series.items()
        if name.startswith("EB after") and not points[0].coding
    }
    (early, first), *later = layers.items()
    for name, points in later:
        lines.append(
            f"- ExR-D, early placement: {early} has {first[0].exrd:,.0f} bit · bytes at "
            f"{first[0].score:.2%}, {name} {points[0].exrd:,.0f} at {points[0].score:.2%}; R-D: "
            f"{first[0].data_bytes:,.0f} and {points[0].data_bytes:,.0f} bytes."
        )
        lines.append(
            f"- ExR-D, Entropic Student beside {name}: "
            f"{beaten(points, series[STUDENT], product=True)} beaten."
        )
    for one in series.get(HYPER, ()):
        same = next((other for other in series[STUDENT] if other.setting == one.setting), None)
        if same:
            lines.append(
                f"- MSHP beside FP at {one.setting}: {one.score:.2%} at "
                f"{one.data_bytes:,.0f} bytes and {one.encoder_bits:,} encoder bits; FP "
                f"{same.score:.2%} at "
                f"{same.data_bytes:,.0f} bytes and {same.encoder_bits:,}."
            )
    compared = [*found.bd_rates("JPEG input"), *found.bd_rates(STUDENT)]
    lines += [
        "",
        "## BD-rate",
        "",
        "| series | against | bytes at equal top-1 |",
        "| --- | --- | ---: |",
    ]
    lines += [
        f"| {one.series} | {one.against} | "
        + ("no common range |" if one.percent is None else f"{one.percent:+.1f}% |")
        for one in compared
    ]
    return lines


def main() -> None:
    found = collect(read_accuracy(path) for path in sorted(RESULTS.glob("*.json")))
    text = "\n".join(findings(found)) + "\n"
    (RESULTS / "findings.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
