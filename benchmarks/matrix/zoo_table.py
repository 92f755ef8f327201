"""The page of the zoo: what each architecture costs the device, and its parity with sc2bench."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version

from benchmarks.matrix.page import table_line
from splitrun.errors import DependencyError, ParityError
from splitzoo import __version__
from splitzoo.profile.flops import count_flops
from splitzoo.profile.size import encoder_bits, encoder_parameters
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo import catalog
from splitzoo.zoo.encoder_rows import EncoderRow, first_of_encoders
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


def names_to_measure() -> list[str]:
    """Return the first model of each architecture, and of each size of encoders beside them."""
    return list(dict.fromkeys([*catalog.list_architectures(), *first_of_encoders()]))


def measure_zoo(
    names: Sequence[str],
    *,
    compare: Callable[[ModelSpec], str],
    progress: Progress = SILENT,
) -> Iterator[EncoderRow]:
    """Build models, and count what each costs the device.

    Args:
        names: Names of models.
        compare: Function that says how a model compares with the reference.
        progress: Progress to report to.
    """
    others = (f"{package} {version(package)}" for package in ("torch", "timm", "compressai"))
    versions = ", ".join([f"splitzoo {__version__}", *others])
    for name in progress.track(names, "models"):
        model = catalog.build(name)
        compute = count_flops(model)
        yield EncoderRow(
            model=name,
            parameters=encoder_parameters(model),
            encoder_bits=encoder_bits(model),
            device_macs=compute.macs,
            uncounted=compute.left_out(),
            parity=_compared(compare, model.spec),
            versions=versions,
        )


def _compared(compare: Callable[[ModelSpec], str], spec: ModelSpec) -> str:
    try:
        return compare(spec)
    except ParityError as error:
        return f"**differs**: {error.message}"
    except DependencyError as error:
        return f"not compared: {error.message}"


def render_zoo(rows: Iterable[EncoderRow], *, command: str) -> str:
    """Render the rows of architectures as Markdown, in the registry's order."""
    groups = catalog.list_architectures()
    found = {row.model: row for row in rows}
    shown = [(found[first], len(same)) for first, same in groups.items() if first in found]
    versions = dict.fromkeys(row.versions for row, _ in shown)
    lines = [
        "# The zoo",
        "",
        f"{sum(models for _, models in shown)} models of {len(shown)} architectures; models of one "
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
        *(table_line(_cells(row, models)) for row, models in shown),
        "",
        f"Made by `{command}` of `zoo/encoders.csv`; counted with {'; '.join(versions)}.",
        "",
    ]
    return "\n".join(lines)


def _cells(row: EncoderRow, models: int) -> Iterator[str]:
    spec = catalog.get_spec(row.model)
    main = spec.wire[0]
    elements = main.shape[0] * main.shape[1] * main.shape[2]
    yield f"`{spec.name}`"
    yield str(models)
    yield f"{spec.backbone} after {spec.cut}" if spec.cut else f"before {spec.backbone}"
    yield f"{main.name} {'×'.join(map(str, main.shape))} {main.dtype}"
    yield f"{elements:,}"
    yield f"{row.parameters:,}"
    yield f"{row.encoder_bits:,}"
    yield f"{'at least ' if row.uncounted else ''}{row.device_macs:,}"
    yield row.parity
