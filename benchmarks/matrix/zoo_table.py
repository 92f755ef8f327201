"""The page of the zoo: what each architecture costs the device, and its parity with sc2bench."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.matrix.page import table_line
from splitrun.errors import DependencyError, ParityError
from splitzoo import __version__
from splitzoo.profile.flops import count_flops
from splitzoo.profile.size import encoder_bits, encoder_parameters
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo import catalog
from splitzoo.zoo.spec import ModelSpec

_HEADER = (
    ("architecture", "---"),
    ("models", "---:"),
    ("cut", "---"),
    ("sent per image", "---"),
    ("elements", "---:"),
    ("parameters on the device", "---:"),
    ("encoder bits", "---:"),
    ("MACs on the device", "---:"),
    ("against the reference", "---"),
)


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        spec: Spec of its first model.
        models: Number of registered models that have it.
        parameters: Learned parameters on the device.
        bits: Encoder bits, Eq. 1 of the SC2 paper.
        macs: MACs on the device, per image, in words.
        parity: Parity with the reference implementation, in words.
    """

    spec: ModelSpec
    models: int
    parameters: int
    bits: int
    macs: str
    parity: str


def measure_zoo(
    names: Sequence[str] | None = None,
    *,
    compare: Callable[[ModelSpec], str] | None = None,
    progress: Progress = SILENT,
) -> list[Row]:
    """Build every architecture, and count what it costs the device.

    Args:
        names: Names of the first models of architectures; by default all.
        compare: Function that says how a model compares with the reference; None compares nothing.
        progress: Progress to report to.
    """
    groups = catalog.list_architectures()
    rows = []
    for name in progress.track(list(groups if names is None else names), "architectures"):
        model = catalog.build(name)
        rows.append(
            Row(
                spec=model.spec,
                models=len(groups.get(name, [name])),
                parameters=encoder_parameters(model),
                bits=encoder_bits(model),
                macs=count_flops(model).said(),
                parity=_compared(compare, model.spec),
            )
        )
    return rows


def _compared(compare: Callable[[ModelSpec], str] | None, spec: ModelSpec) -> str:
    if compare is None:
        return "not compared"
    try:
        return compare(spec)
    except ParityError as error:
        return f"**differs**: {error.message}"
    except DependencyError as error:
        return f"not compared: {error.message}"


def render_zoo(rows: Sequence[Row], *, command: str) -> str:
    """Render the table as Markdown."""
    lines = [
        "# The zoo",
        "",
        f"{sum(row.models for row in rows)} models of {len(rows)} architectures; models of one "
        "architecture differ in β, quality, or, for CR + BQ, the number of channels. Elements are "
        "those of the main tensor that the device sends for one image of the model's input size, "
        "before coding; encoder bits are Eq. 1 of the SC2 paper. The last column compares with "
        "sc2bench's own model, with the same random weights and images: all integers that are "
        "sent, and the outputs; for CR + BQ only the outputs, without the quantiser. Learned image "
        "codecs are compared with CompressAI's, by their symbols (for mbt2018 those of z) and by "
        "the image of 128×128 pixels that each decodes from its bytes. Other image codecs have no "
        "reference. MACs include those of mbt2018's context network, which runs in the entropy "
        "coder.",
        "",
        table_line(name for name, _ in _HEADER),
        table_line(rule for _, rule in _HEADER),
        *(table_line(_cells(row)) for row in rows),
        "",
        f"Made by `{command}` with splitzoo {__version__}, torch {version('torch')}, "
        f"timm {version('timm')}, compressai {version('compressai')}.",
        "",
    ]
    return "\n".join(lines)


def named_cells(spec: ModelSpec, models: int) -> list[str]:
    """Return the cells that a spec tells by itself: name, models, cut, what is sent, elements."""
    main = spec.wire[0]
    elements = main.shape[0] * main.shape[1] * main.shape[2]
    return [
        f"`{spec.name}`",
        str(models),
        f"{spec.backbone} after {spec.cut}" if spec.cut else f"before {spec.backbone}",
        f"{main.name} {'×'.join(map(str, main.shape))} {main.dtype}",
        f"{elements:,}",
    ]


def _cells(row: Row) -> Iterable[str]:
    yield from named_cells(row.spec, row.models)
    yield f"{row.parameters:,}"
    yield f"{row.bits:,}"
    yield row.macs
    yield row.parity
