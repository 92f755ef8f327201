"""How fast machines are beside the one that latencies were measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splitrun.errors import ReportError
from splitrun.registry import Registry

from ...zoo.model_rows import ModelRow
from ..costs import Latency, is_accuracy, read_latencies

_RESNET18_MACS = 1.81e9
_NCNN = (
    "ncnn's benchmark/README.md (commit a4d2ea1): resnet18, 1.81 GMACs, in {:g} ms at best on "
    "{} threads, in fp16 where the processor has it"
)


@dataclass(frozen=True)
class Board:
    """A device, as a public benchmark describes it.

    Attributes:
        macs_per_second: Multiply-accumulates of a convolutional network that it computes.
        source: What the number is taken from.
    """

    macs_per_second: float
    source: str


BOARDS: Registry[Board] = Registry("device")
for _name, _ms, _threads in (
    ("raspberrypi-3b+", 270.86, 4),
    ("raspberrypi-4", 122.27, 4),
    ("raspberrypi-5", 19.84, 4),
    ("raspberrypi-zero2w", 351.37, 4),
):
    _rate = _RESNET18_MACS / (_ms / 1e3)
    BOARDS.register(_name, Board(_rate, _NCNN.format(_ms, _threads)))


@dataclass(frozen=True)
class Pace:
    """How long a machine takes.

    Attributes:
        name: Name of the machine.
        factor: How many times as long it takes as the machine of the rows.
        measured_ms: Median latency of the device half by model id, where it was measured there.
        source: What the factor is taken from; empty for the machine of the rows.
    """

    name: str
    factor: float = 1.0
    measured_ms: tuple[tuple[str, float], ...] = ()
    source: str = ""

    def device_ms(self, row: ModelRow, own_ms: float) -> tuple[float, bool]:
        """Return a row's latency on this machine, and whether it was measured there.

        Args:
            row: Model.
            own_ms: Its latency on the machine of the rows.
        """
        measured = dict(self.measured_ms)
        if row.model_id in measured and row.encoder_bits:
            return measured[row.model_id], True
        return own_ms * self.factor, self.factor == 1 and row.device_ms is not None


def macs_per_ms(rows: Sequence[ModelRow]) -> float:
    """Return what the machine of the rows computes, over all graphs that were timed on it.

    Raises:
        ReportError: None was.
    """
    timed = [
        (macs, ms)
        for row in rows
        for macs, ms in (
            (row.device_macs, row.device_graph_ms),
            (row.edge_macs, row.edge_graph_ms),
        )
        if macs and ms
    ]
    if not timed:
        raise ReportError(
            "No graph of a model was timed, so nothing is known of how long one takes.",
            next_step="Time one: splitzoo profile encoder BUNDLE -o profile.json; then: --report "
            "profile.json",
        )
    return sum(macs for macs, _ in timed) / sum(ms for _, ms in timed)


def read_pace(given: str | None, rows: Sequence[ModelRow]) -> Pace:
    """Return how fast a device is: a board by name, or what latencies of one model say.

    Args:
        given: Name of a board, or file of ``profile encoder -o`` or ``splitrun bench --json``;
            None for the machine of the rows.
        rows: Rows with latencies, of one machine.

    Raises:
        UnknownNameError: There is no such board or file.
        ReportError: The file is of no model of these rows.
    """
    here = next((row.machine for row in rows if row.machine), "")
    if given is None:
        return Pace(here)
    if given in BOARDS or not Path(given).exists():
        board = BOARDS.get(given)
        factor = 1e3 * macs_per_ms(rows) / board.macs_per_second
        return Pace(given, factor, (), board.source)
    path = Path(given)
    if path.is_file() and is_accuracy(path):
        raise ReportError(f"{path} is a report of accuracy, and no latency of a device.")
    found = [one for one in read_latencies([path]) if one.half == "device"]
    ratios = [ratio for one in found if (ratio := _ratio(one, rows))]
    if not ratios:
        raise ReportError(
            f"{path} holds no latency of a model that is compared here.",
            next_step=f"Measure one of them there, such as {rows[0].model}: splitrun bench --json",
        )
    measured = tuple((one.model_id, one.median_ms) for one in found)
    names = ", ".join(dict.fromkeys(one.model for one in found))
    source = f"{path.name}: {names} takes {ratios[0]:.3g} times as long as on {here}"
    return Pace(found[0].machine, sum(ratios) / len(ratios), measured, source)


def _ratio(latency: Latency, rows: Sequence[ModelRow]) -> float | None:
    for row in rows:
        if row.model_id == latency.model_id and row.device_ms:
            return latency.median_ms / row.device_ms
    return None
