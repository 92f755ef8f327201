"""What was measured of a model on machines, a board's own among them, for the tables of cards."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from splitrun.errors import ReportError
from splitrun.files import sha256_file
from splitrun.manifest import Manifest
from splitrun.text import check_texts

from ..profile.report import Count, Part, StepLatency

_MOST_BYTES = 1 << 24
Text = Annotated[str, Field(max_length=400)]


class Measurement(Part):
    """Latency of one half on one machine.

    Attributes:
        half: Which half.
        machine: Processor, or GPU, with what the machine says of itself.
        engine: Engine with its version.
        precision: Precision of the half's graph.
        threads: Threads given to the engine; 0 let it choose.
        what: What was timed: all steps, or the graph alone.
        latency: Percentiles, milliseconds.
        peak_memory_bytes: Largest memory of the process, where it was measured.
        file_sha256: Digest of the file that says so.
    """

    half: Literal["device", "edge"]
    machine: Text
    engine: Text
    precision: Text
    threads: Count
    what: Literal["all steps", "the graph"]
    latency: StepLatency
    peak_memory_bytes: Count | None
    file_sha256: str


class _Bench(BaseModel):
    half: Literal["device", "edge"]
    engine: Text
    model: Text
    model_id: Text
    precision: Text
    threads: Count
    latency: dict[str, StepLatency]
    peak_memory_bytes: Count
    environment: dict[str, str]


class _Engine(BaseModel):
    key: dict[str, str]
    latency: StepLatency


class _Engines(BaseModel):
    graphs: dict[str, _Engine]
    environment: dict[str, str]
    power: Text


def read_measurements(path: Path, manifest: Manifest | None, model_id: str) -> list[Measurement]:
    """Read what a machine measured, and check that it is of a card's model.

    Args:
        path: Output of ``splitrun bench --json``, or a bundle's ``engines/engine.json``.
        manifest: Manifest of the card's bundle, which knows the graphs of engines.
        model_id: 8 hexadecimal digits, of all tensors of the card's model.

    Raises:
        ReportError: It is neither, or of another model.
    """
    next_step = "Make it on the machine: python -m splitrun bench --json > FILE"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ReportError(f"{path} is larger than {_MOST_BYTES >> 20} MiB.")
        content: Any = json.loads(path.read_bytes())
        check_texts(content)
        digest = sha256_file(path)
        if isinstance(content, list):
            return _of_benches(path, content, model_id, digest)
        return _of_engines(path, _Engines.model_validate(content), manifest, digest)
    except ReportError:
        raise
    except (OSError, ValueError, ValidationError, RecursionError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReportError(
            f"{path} holds no measurement of a bundle: {first}.", next_step=next_step
        ) from error


def _of_benches(path: Path, content: Any, model_id: str, digest: str) -> list[Measurement]:
    benches = TypeAdapter(list[_Bench]).validate_python(content)
    if not benches:
        raise ReportError(f"{path} holds no measurement.")
    for one in benches:
        if one.model_id != model_id:
            raise ReportError(
                f"{path} was measured of {one.model} ({one.model_id}), and this card is of other "
                f"weights ({model_id})."
            )
    return [
        Measurement(
            half=one.half,
            machine=f"{one.environment['cpu']}, {one.environment.get('cores', '?')} cores",
            engine=one.engine,
            precision=one.precision,
            threads=one.threads,
            what="all steps",
            latency=one.latency["total"],
            peak_memory_bytes=one.peak_memory_bytes,
            file_sha256=digest,
        )
        for one in benches
    ]


def _precision(manifest: Manifest, on_device: bool) -> str:
    return manifest.precision if on_device else manifest.edge.precision


def _of_engines(
    path: Path, engines: _Engines, manifest: Manifest | None, digest: str
) -> list[Measurement]:
    known = manifest.files if manifest else {}
    found = []
    for file, engine in engines.graphs.items():
        if known.get(file) != engine.key.get("onnx_sha256"):
            raise ReportError(
                f"{path} is of an engine built from another {file} than this card's bundle holds.",
                next_step="Build the card of the bundle that lies on the board: cards build "
                "--bundle BUNDLE",
            )
        key = engine.key
        on_device = file.startswith("device/")
        board = ", ".join(filter(None, (key["gpu"], key.get("jetpack", ""), engines.power)))
        found.append(
            Measurement(
                half="device" if on_device else "edge",
                machine=board,
                engine=f"TensorRT {key['tensorrt']}",
                precision=_precision(manifest, on_device) if manifest else "",
                threads=0,
                what="the graph",
                latency=engine.latency,
                peak_memory_bytes=None,
                file_sha256=digest,
            )
        )
    if not found:
        raise ReportError(f"{path} holds no measurement.")
    return found
