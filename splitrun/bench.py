"""Measure latency and memory of a bundle where it runs."""

from dataclasses import dataclass

from .bundle import Bundle
from .coding.ans import BACKEND
from .halves import Device, Edge
from .machine import machine, versions
from .measure import Latency, measure_steps, peak_memory_bytes
from .record import DeviceRecord, EdgeRecord


@dataclass(frozen=True)
class Bench:
    """Measurement of one half.

    Attributes:
        model: Name of the model.
        model_id: 8 hexadecimal digits, of all tensors of the model.
        target: Target of the bundle.
        precision: Precision of the half's graph.
        engine: Engine with its version.
        half: ``"device"`` or ``"edge"``.
        image: Path of the image, or ``"self-test"``.
        threads: Number of threads given to the engine; 0 lets it choose.
        warmup: Runs before the counted ones.
        iterations: Counted runs.
        payload_bytes: Size of the image's payload.
        stream_bytes: Size of the image's stream.
        latency: Latency per step and in total.
        peak_memory_bytes: Largest memory of the process so far.
        environment: Machine and versions.
    """

    model: str
    model_id: str
    target: str
    precision: str
    engine: str
    half: str
    image: str
    threads: int
    warmup: int
    iterations: int
    payload_bytes: int
    stream_bytes: int
    latency: dict[str, Latency]
    peak_memory_bytes: int
    environment: dict[str, str]


def bench_half(
    bundle: Bundle,
    half: str,
    *,
    image: str | None = None,
    beta: float | None = None,
    tail: str | None = None,
    threads: int = 0,
    stand_in: bool = False,
    warmup: int = 10,
    iterations: int = 100,
) -> Bench:
    """Time the steps of one half on one image; see :class:`Bench` for the arguments.

    Args:
        half: ``"device"``: encoder, entropy coding, framing. ``"edge"``: framing, entropy coding,
            decoder.
        image: Path of an image file, preprocessing then being timed too; by default the input
            recorded for the self-test.
        beta: β that the device encodes at, where the model's rate varies.
        tail: Name of the edge's tail, where the bundle has several.
        stand_in: Let another engine run the graphs of one that is not here, where one can.
    """
    if half == "device":
        record = DeviceRecord.load(bundle)
        device = Device(bundle, threads, stand_in=stand_in)
        codec, engine = device.codec.at(beta), device.graph.engine
        steps = {
            "encoder": device.wire_tensors,
            "entropy coding": lambda wire: codec.coder.encode(*(tensor[0] for tensor in wire)),
            "framing": lambda payload: codec.frame(payload, codec.shape),
        }
        value: object = record.image
        if image:
            steps = {"preprocessing": bundle.preprocessing.load, **steps}
            value = image
        stream = device.encode_image(image, beta) if image else device.encode(record.image, beta)[0]
    else:
        edge = Edge(bundle, threads, tail=tail, stand_in=stand_in)
        codec, engine = edge.codec, edge.graph.engine
        steps = {
            "framing": codec.unframe,
            "entropy coding": lambda frame: edge.decode_payload(*frame),
            "decoder": edge.graph,
        }
        value = stream = EdgeRecord.load(bundle, tail).stream
    coder = "constriction"
    implementation = (
        versions(coder) if coder == BACKEND.NAME else {coder: f"not installed: {BACKEND.NAME}"}
    )
    latency = measure_steps(steps, value, warmup=warmup, iterations=iterations)
    return Bench(
        model=bundle.name,
        model_id=bundle.manifest.provenance.model_id,
        target=bundle.manifest.target,
        precision=bundle.precision if half == "device" else bundle.manifest.edge.precision,
        engine=engine,
        half=half,
        image=image or "self-test",
        threads=threads,
        warmup=warmup,
        iterations=iterations,
        payload_bytes=len(codec.unframe(stream)[0]),
        stream_bytes=len(stream),
        latency=latency,
        peak_memory_bytes=peak_memory_bytes(),
        environment=machine()
        | versions("numpy", "pillow")
        | implementation
        | codec.coder.versions(),
    )
