"""Measure what the device pays: for a model in PyTorch, or for a bundle in its own runtime."""

import datetime
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from splitrun.bundle import open_bundle
from splitrun.halves import Device
from splitrun.machine import machine, versions
from splitrun.measure import measure_steps, peak_memory_bytes

from .. import __version__, zoo
from ..export.manifest import spec_of
from ..export.recording import seeded_image
from ..export.running import bench_bundle
from ..progress import SILENT, Progress
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from .flops import count_flops
from .rate import COUNTED_BY_SC2BENCH, Rate, bundle_rates, model_rates
from .report import EncoderProfile, LatencyReport, Size, StepLatency
from .size import deployed_bytes, encoder_bits, encoder_parameters, sc2bench_encoder_bits

Track = Callable[[Sequence[Path]], Iterable[Path]]


def profile_model(
    model: SplitModel,
    *,
    images: Sequence[Path] = (),
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    command: str = "",
    progress: Progress = SILENT,
) -> EncoderProfile:
    """Profile the encoder of a model in eager PyTorch on the CPU.

    Args:
        model: In evaluation mode.
        images: Images to measure bytes on.
        threads: For PyTorch; 0 leaves its setting.
        warmup: Runs before the counted ones.
        iterations: Counted runs.
        command: That makes this report again.
        progress: Told of each image.
    """
    codec = model.codec
    image = torch.from_numpy(seeded_image(model.spec.preprocessing, seed=0))
    steps = {
        "encoder": model.wire_tensors,
        "entropy coding": lambda tensors: codec.coder.encode(*(one[0] for one in tensors)),
        "framing": lambda payload: codec.frame(payload, codec.shape),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        used_threads = torch.get_num_threads()
        latency = measure_steps(steps, image, warmup=warmup, iterations=iterations)
    finally:
        torch.set_num_threads(before)
    memory = peak_memory_bytes()
    rate = model_rates(model, progress.track(images, "images")) if images else None
    return EncoderProfile(
        spec=model.spec,
        subject="model",
        runtime=f"PyTorch {torch.__version__}, eager",
        device="cpu",
        source=model.source,
        weights="trained" if model.random_seed is None else "random",
        seed=model.random_seed,
        model_id=codec.model_id.hex(),
        size=Size(
            parameters=encoder_parameters(model),
            encoder_bits=encoder_bits(model),
            sc2bench_encoder_bits=sc2bench_encoder_bits(model),
            graph_bytes=None,
            tables_bytes=None,
        ),
        compute=count_flops(model),
        latency=_latency(latency, used_threads, warmup, iterations),
        peak_memory_bytes=memory,
        peak_memory_of="the whole process: Python, PyTorch and both halves of the model",
        rate=rate,
        not_measured=[
            "deployed bytes (export the model, then profile the bundle)",
            *_left_out(rate, model.spec),
        ],
        environment=_environment(),
        date=_today(),
        command=command,
    )


def profile_bundle(
    folder: Path,
    *,
    images: Sequence[Path] = (),
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    command: str = "",
    progress: Progress = SILENT,
    trust: bool = False,
) -> EncoderProfile:
    """Profile the device half of a bundle in a process of its own.

    Args:
        folder: Of the bundle.
        images: Images to measure bytes on.
        threads: For the engine; 0 lets it choose.
        warmup: Runs before the counted ones.
        iterations: Counted runs.
        command: That makes this report again.
        progress: Told of each image.
        trust: Run graphs of formats that can hold code.

    Raises:
        BundleError: The bundle cannot be read.
    """
    bundle = open_bundle(folder)
    manifest, spec = bundle.manifest, spec_of(bundle.manifest)
    bench = bench_bundle(
        folder, "device", threads=threads, warmup=warmup, iterations=iterations, trust=trust
    )
    # Parameters and operations are the architecture's; its weights do not matter here.
    model = zoo.build(spec)
    graph_bytes, tables_bytes = deployed_bytes(bundle)
    rate = None
    if images:
        rate = bundle_rates(
            Device(bundle, threads), bundle.preprocessing, progress.track(images, "images")
        )
    return EncoderProfile(
        spec=spec,
        subject="bundle",
        runtime=bench.engine + ("" if manifest.precision == "fp32" else f", {manifest.precision}"),
        device="cpu",
        source=manifest.provenance.source,
        weights=manifest.provenance.weights,
        seed=manifest.provenance.seed,
        model_id=manifest.coding.model_id,
        size=Size(
            parameters=encoder_parameters(model),
            encoder_bits=encoder_bits(model),
            sc2bench_encoder_bits=sc2bench_encoder_bits(model, bundle.codec().coder),
            graph_bytes=graph_bytes,
            tables_bytes=tables_bytes,
        ),
        compute=count_flops(model),
        latency=_latency(bench.latency, threads, warmup, iterations),
        peak_memory_bytes=bench.peak_memory_bytes,
        peak_memory_of="the whole process: Python, the engine and the device half",
        rate=rate,
        not_measured=_left_out(rate, spec),
        environment=bench.environment | {"splitzoo": __version__},
        date=_today(),
        command=command,
    )


def _latency(steps: dict, threads: int, warmup: int, iterations: int) -> LatencyReport:
    return LatencyReport(
        threads=threads,
        warmup=warmup,
        iterations=iterations,
        steps={name: StepLatency.model_validate(one) for name, one in steps.items()},
    )


def _left_out(rate: Rate | None, spec: ModelSpec) -> list[str]:
    found = [
        "preprocessing (reading, resizing) in the latency",
        "entropy coding in the operations",
    ]
    if rate is None:
        found.append("bytes per image (give images with --images DIR)")
    elif spec.bottleneck.kind not in COUNTED_BY_SC2BENCH:
        found.append("bytes as sc2bench counts (what it sends for this kind has another form)")
    return found


def _environment() -> dict[str, str]:
    packages = ("torch", "compressai", "constriction", "numpy", "pillow")
    return machine() | {"splitzoo": __version__} | versions(*packages)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
