"""What people read of a run of ``speed.py``: a Markdown page, and tables in the terminal."""

from rich.table import Table
from speed_report import QUIET_CORES, Bar, Report, Timing
from speed_tasks import (
    BATCHES,
    DECODE,
    ENCODE,
    ENCODER,
    ENTROPY_DECODING,
    ENTROPY_ENCODING,
    IMAGE,
    KINDS,
    PEER,
    PREPROCESSING,
    TASKS,
    Kind,
    Task,
)

Rows = list[list[str]]
"""Of a table, its head first."""

NOWHERE = "–"


def markdown(report: Report) -> str:
    """Return the report as a page."""
    parts = [
        "# Speed beside sc2bench",
        *conditions(report),
        "## Bars",
        grid(bars(report)),
        "Ratios are medians over sc2bench's of the same run. What the best is held against is of "
        "the target with the lowest median.",
        f"## Device: {ENCODE.name}",
        grid(device(report)),
        how(report),
        f"Encoder and entropy coding are parts of the whole, timed apart. Memory: the peak of "
        f"`python -m splitrun encode` with one image{imports(report)}. On disk: the device "
        "graph's files and the tables. Symbols that differ, and payload bytes as a multiple of "
        f"fp32's: against PyTorch, on {images(report)}.",
        ratios_of_rounds(report, ENCODE),
        "## Below fp32",
        grid(below(report)),
        f"Ranges are taken of {report.calibrated_on}, and what changes is counted on others of "
        "them. Payload: its growth, under the same tables. The weights here are random: "
        "`int8_accuracy.py` measures trained models.",
        f"## {IMAGE.name}",
        grid(image(report)),
        f"{report.images[0]}: decode, resize, crop, normalise, encode, code, frame. "
        + pixels(report),
        ratios_of_rounds(report, IMAGE),
        f"## Edge: {DECODE.name}",
        grid(edge(report)),
        "The edge of a bundle whose device is in int8 or bf16 is fp32's. Images per second: of "
        "bundles for any number of images; entropy decoding included, the graph run once for all.",
        ratios_of_rounds(report, DECODE),
        "The edge below fp32, against fp32's on images held out:",
        grid(edge_below(report)),
        "## Distance to the limit",
        "The encoder:",
        grid(roofline(report, ENCODER)),
        "The edge, stream → logits, entropy decoding included:",
        grid(roofline(report, DECODE)),
        work(report),
        grid(peaks(report)),
        "## What ran",
        grid(ran()),
        f"On the first image {report.prepared.symbols_not_zero:,} symbols are not 0. "
        "sc2bench's entropy coding takes and gives latents: rounding and medians are in its rows. "
        "Ours takes and gives symbols; the graphs do the rest.",
        not_measured(report),
    ]
    return "\n\n".join(parts) + "\n"


def conditions(report: Report) -> list[str]:
    """Say what was measured, when, where, and with what."""
    env = report.environment
    return [
        f"{report.model}, the same random weights (seed 0) on all sides, 224×224, batch 1, "
        f"{report.threads} threads. {report.date}, `{shell(report)}`.",
        f"{env['cpu']} ({env['instructions']}), {env['cores']} cores, {env['system']}, "
        f"Python {env['python']}; "
        + ", ".join(f"{name} {number}" for name, number in report.versions.items())
        + f". Load average before the run {report.load_average[0]}. {disturbance(report)}",
    ]


def terminal_tables(report: Report) -> list[Table]:
    """Return the tables that matter most."""
    titles = {
        f"{ENCODE.name}, {report.model}, {report.threads} threads": device(report),
        IMAGE.name: image(report),
        DECODE.name: edge(report),
        "bars": bars(report),
    }
    found = []
    for title, (head, *rows) in titles.items():
        table = Table(*head, title=title)
        for row in rows:
            table.add_row(*row)
        found.append(table)
    return found


def shell(report: Report) -> str:
    """Return the command line, with what glibc was told."""
    return " ".join([*(f"{name}={one}" for name, one in report.malloc.items()), report.command])


def disturbance(report: Report) -> str:
    """Say how much other processes worked meanwhile, and whether the times can be trusted."""
    turns = [cores for side in report.foreign_cores.values() for cores in side]
    known = [cores for cores in turns if cores is not None]
    if not known:
        return "What other processes did meanwhile is not known."
    text = f"Other processes kept at most {max(known):.2f} cores busy during a turn"
    if max(known) <= QUIET_CORES:
        return text + "."
    return text + f": the machine was not quiet (≤ {QUIET_CORES}), do not rely on the times."


def bars(report: Report) -> Rows:
    """Every bar, and whether it is met."""

    def row(one: Bar) -> list[str]:
        unit = f" {one.unit}" if one.unit else ""
        value = NOWHERE if one.value is None else f"{one.value:.3g}{unit}"
        return [one.name, one.subject, value, f"≤ {one.limit}{unit}", word(one.met)]

    return [["what", "side", "measured", "bar", "met"], *map(row, report.bars)]


def word(met: bool | None) -> str:
    """Return a verdict for people."""
    return "not measured" if met is None else "yes" if met else "no"


def how(report: Report) -> str:
    """Say what the times are."""
    edges, parts = (round(report.iterations * one.share) for one in (DECODE, ENCODER))
    return (
        f"Times are p50 (p90), in ms, over {report.rounds} round(s), the sides in turn, every "
        f"other round backwards, each turn a new process with warm-up and {report.iterations} "
        f"counted runs; {DECODE.name}: {edges}; parts: {parts}."
    )


def imports(report: Report) -> str:
    """Say what the processes that encode load beside their engine."""
    heavy = {one.side: one.heavy_imports for one in report.memory}
    light = [side for side, names in heavy.items() if not names]
    return f" (of {', '.join(light)} without torch, timm, onnx and splitzoo)" if light else ""


def images(report: Report) -> str:
    """Say how many were compared."""
    count = len(report.images)
    return f"{count} images" if count > 1 else f"one image, {report.images[0]}"


def pixels(report: Report) -> str:
    """Say how far preprocessing is from torchvision's."""
    found = report.prepared.pixels
    return (
        f"Our pixels differ from torchvision's by {found.mean:.5f} levels of 255 in the mean and "
        f"{found.largest} at most ({images(report)}, {found.values:,} values)."
    )


def work(report: Report) -> str:
    """Say what the limit is made of."""
    made = report.prepared
    low = "."
    if made.int8_macs:
        low = f", {made.int8_macs:,} of them int8 in the int8 graph, if the engine does as it says."
    return (
        f"The encoder has {made.macs:,} MACs{low} The edge's convolutions have {made.edge_macs:,}. "
        "Bound: each at the peak of its type; reached: the bound as a share of the median. Peaks, "
        "the fastest of all runs before and after the rounds:"
    )


def ran() -> Rows:
    """What each task is, on both sides."""
    tasks = (*TASKS, *BATCHES.values())
    return [["task", "splitzoo", PEER], *([one.name, one.ours, one.theirs] for one in tasks)]


def ratios_of_rounds(report: Report, task: Task) -> str:
    """Give the ratio of each round alone."""
    sides = [one for one in report.timings if one.task == task.name and one.side != PEER]
    each = (f"{one.side} {', '.join(f'{r:.3f}' for r in one.round_ratios)}" for one in sides)
    return f"Ratios of the rounds: {'; '.join(each)}."


def ms(timing: Timing | None, spread: bool = True) -> str:
    """Return a median, with p90 in brackets."""
    if timing is None:
        return NOWHERE
    text = f"{timing.latency.p50_ms:.2f}"
    return f"{text} ({timing.latency.p90_ms:.2f})" if spread else text


def ratio(timing: Timing | None) -> str:
    """Return how a median compares with sc2bench's."""
    return NOWHERE if timing is None or timing.side == PEER else f"{timing.ratio:.3f}"


def sides(report: Report, task: Task) -> list[str]:
    """Return the sides that did a task, sc2bench last."""
    done = [one.side for one in report.timings if one.task == task.name]
    return [*(side for side in done if side != PEER), PEER]


def device(report: Report) -> Rows:
    """The device half of every target."""
    made = {one.name: one for one in report.prepared.made}
    memory = {one.side: one for one in report.memory}
    exact = sum(report.prepared.payload_bytes)
    rows = [["target", "ms", "ratio", "encoder", "entropy coding", "memory", "on disk"]]
    rows[0] += ["symbols that differ", "payload"]
    for side in sides(report, ENCODE):
        whole, same = report.timing(side, ENCODE), report.agreements[side]
        files = made.get(side)
        rows.append(
            [
                side,
                ms(whole),
                ratio(whole),
                ms(report.timing(side, ENCODER), False),
                ms(report.timing(side, ENTROPY_ENCODING), False),
                f"{memory[side].peak_bytes / 1e6:.0f} MB" if side in memory else NOWHERE,
                f"{(files.graph_bytes + files.tables_bytes) / 1e3:,.0f} kB" if files else NOWHERE,
                f"{same.symbols_differing:,} ({same.symbols_differing / same.symbols:.2%})",
                f"{sum(same.payload_bytes) / exact:.4f}",
            ]
        )
    return rows


def below(report: Report) -> Rows:
    """What precisions below fp32 change."""
    head = ["target", "calibrated to", "judged on", "symbols that differ", "at most by"]
    rows = [[*head, "payload", "convolutions left in fp32", "beyond the export's limits"]]
    for one in report.prepared.made:
        if one.effect:
            effect = one.effect
            rows.append(
                [
                    one.name,
                    str(effect.calibrated) if effect.calibrated else NOWHERE,
                    str(effect.held_out),
                    f"{effect.flips:.2%}",
                    str(effect.largest_difference),
                    f"{effect.rate_inflation:+.2%}",
                    str(len(effect.kept_fp32)) if effect.calibrated else NOWHERE,
                    "; ".join(effect.accepted) or "no",
                ]
            )
    return rows


def edge_below(report: Report) -> Rows:
    """What precisions of the edge below fp32 change."""
    head = ["target", "calibrated to", "judged on", "answers that change", "outputs differ by"]
    rows = [[*head, "beyond the export's limits"]]
    for one in report.prepared.made:
        if effect := one.edge_effect:
            rows.append(
                [
                    one.name,
                    str(effect.calibrated) if effect.calibrated else NOWHERE,
                    str(effect.held_out),
                    str(effect.answers_changed),
                    f"{effect.output_error:.2%}",
                    "; ".join(effect.accepted) or "no",
                ]
            )
    return rows


def image(report: Report) -> Rows:
    """The whole job of a device."""
    rows = [["target", "ms", "ratio", "preprocessing"]]
    for side in sides(report, IMAGE):
        whole = report.timing(side, IMAGE)
        rows.append([side, ms(whole), ratio(whole), ms(report.timing(side, PREPROCESSING), False)])
    return rows


def edge(report: Report) -> Rows:
    """The edge half of every target, and its throughput."""
    several = {kind.target: kind.name for kind in KINDS if kind.open_batch}
    targets: dict[str, Kind] = {kind.name: kind for kind in KINDS}
    rows = [["target", "ms", "ratio", "entropy decoding", "logits within"]]
    rows[0] += [f"images/s, batch {size}" for size in BATCHES]
    for side in sides(report, DECODE):
        whole, same = report.timing(side, DECODE), report.agreements[side]
        kind = targets.get(side)
        exact = kind is not None and kind.edge_precision == "fp32" and not kind.aot
        other = PEER if kind is None else several.get(kind.target, NOWHERE) if exact else NOWHERE
        rates = []
        for size, task in BATCHES.items():
            found = report.timing(other, task)
            rates.append(f"{1e3 * size / found.latency.p50_ms:.1f}" if found else NOWHERE)
        rows.append(
            [
                side,
                ms(whole),
                ratio(whole),
                ms(report.timing(side, ENTROPY_DECODING), False),
                f"{same.logits_relative_error:.1e}",
                *rates,
            ]
        )
    return rows


def roofline(report: Report, task: Task) -> Rows:
    """How near each graph of a half comes to what the machine can do."""
    kinds = {kind.name: kind for kind in KINDS}
    rows = [["target", "ms", "GMAC/s", "bound ms", "reached"]]
    macs = report.prepared.macs if task is ENCODER else report.prepared.edge_macs
    for side in sides(report, task):
        timing = report.timing(side, task)
        if timing is None:
            continue
        kind = kinds.get(side)
        if task is ENCODER:
            bound = report.bound_ms(kind.precision if kind else "fp32")
        else:
            bound = report.edge_bound_ms(kind.edge_precision if kind else "fp32")
        took = timing.latency.p50_ms
        limit = [NOWHERE] * 2 if bound is None else [f"{bound:.2f}", f"{bound / took:.0%}"]
        rows.append([side, f"{took:.2f}", f"{macs / took / 1e6:.0f}", *limit])
    return rows


def peaks(report: Report) -> Rows:
    """The fastest of each library, GMAC/s."""
    rows = [["type", "library", "operation", "GMAC/s"]]
    for one in report.peaks:
        rows.append([one.precision, one.library, one.operation, f"{one.gmacs_per_second:.0f}"])
    return rows


def not_measured(report: Report) -> str:
    """Say what is missing and why."""
    refused = [f"{one.name}: {one.refused}" for one in report.prepared.made if one.refused]
    text = (
        "Not measured: `raspberrypi`, whose files are those of `cpu`, with four threads; `jetson` "
        "and `torch-tensorrt`, which take an NVIDIA GPU."
    )
    return " ".join([text, *refused])


def grid(rows: Rows) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numbers = "|" + " --- |" * len(rows[0])
    return "\n".join([lines[0], numbers, *lines[1:]])
