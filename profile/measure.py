"""Measure the device half: of a model in PyTorch, or of a bundle in its own engine."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import torch

from splitrun.bundle import open_bundle
from splitrun.halves import Device
from splitrun.image_files import Unread
from splitrun.machine import machine, versions
from splitrun.measure import measure_steps, peak_memory_bytes

from .. import __version__, zoo
from ..export.manifest import spec_of
from ..export.recording import seeded_image
from ..export.running import bench_bundle
from ..progress import SILENT, Progress
from ..zoo.split_model import SplitModel
from .flops import count_edge_flops, count_flops
from .rate import COUNTED_BY_SC2BENCH, UNCOUNTED_BY_SC2BENCH, bundle_rates, model_rates
from .report import EncoderProfile, LatencyReport, Rate, Size, StepLatency
from .size import deployed_bytes, encoder_bits, encoder_parameters, sc2bench_encoder_bits


def profile_model(
    model: SplitModel,
    *,
    images: Sequence[Path] = (),
    unread: Sequence[Unread] = (),
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    command: str = "",
    progress: Progress = SILENT,
) -> EncoderProfile:
    """Profile the encoder of a model in eager PyTorch on the CPU.

    Args:
        model: Model in evaluation mode.
        images: Images to measure bytes on.
        unread: Other files of their folder, for the report.
        threads: Number of threads for PyTorch; 0 leaves its setting.
        warmup: Runs before the timed ones.
        iterations: Timed runs.
        command: Command line that the report names as its origin.
        progress: Progress to report to.
    """
    codec = model.codec
    image = torch.from_numpy(seeded_image(model.spec.preprocessing, seed=0))
    steps = {
        "encoder": model.wire_tensors,
        "entropy coding": lambda tensors: codec.coder.encode(*(tensor[0] for tensor in tensors)),
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
    rate = model_rates(model, progress.track(images, "images"), unread) if images else None
    return EncoderProfile(
        spec=model.spec,
        subject="model",
        runtime=f"PyTorch {torch.__version__}, eager",
        device="cpu",
        source=model.source,
        weights="trained" if model.random_seed is None else "random",
        seed=model.random_seed,
        model_id=model.digest().hex()[:8],
        size=Size(
            parameters=encoder_parameters(model),
            encoder_bits=encoder_bits(model),
            sc2bench_encoder_bits=sc2bench_encoder_bits(model),
            graph_bytes=None,
            tables_bytes=None,
        ),
        compute=count_flops(model),
        edge_compute=count_edge_flops(model),
        latency=_latency(latency, used_threads, warmup, iterations),
        peak_memory_bytes=memory,
        peak_memory_of="the whole process: Python, PyTorch and both halves of the model",
        rate=rate,
        not_measured=[
            "deployed bytes (export the model, then profile the bundle)",
            *_left_out(rate, model.spec.bottleneck.kind),
        ],
        environment=machine()
        | {"splitzoo": __version__}
        | versions("torch", "compressai", "constriction", "numpy", "pillow")
        | model.codec.coder.versions(),
        date=_today(),
        command=command,
    )


def profile_bundle(
    folder: Path,
    *,
    images: Sequence[Path] = (),
    unread: Sequence[Unread] = (),
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    command: str = "",
    progress: Progress = SILENT,
    beta: float | None = None,
    trust: bool = False,
) -> EncoderProfile:
    """Profile the device half of a bundle in a process of its own.

    Args:
        folder: Folder of the bundle.
        images: Images to measure bytes on.
        unread: Other files of their folder, for the report.
        threads: Number of threads for the engine; 0 lets it choose.
        warmup: Runs before the timed ones.
        iterations: Timed runs.
        command: Command line that the report names as its origin.
        progress: Progress to report to.
        beta: β to encode at, where the model's rate varies.
        trust: Whether to run graphs whose format can hold code.

    Raises:
        BundleError: The bundle cannot be read.
    """
    bundle = open_bundle(folder, trust=trust)
    bundle.codec().at(beta)  # raises before a process is started
    manifest, spec = bundle.manifest, spec_of(bundle.manifest).at(beta)
    runs = {"threads": threads, "warmup": warmup, "iterations": iterations}
    bench = bench_bundle(folder, "device", **runs, beta=beta, trust=trust)
    # Parameters and operations are the architecture's; its weights do not matter here.
    model = zoo.build(spec)
    graph_bytes, tables_bytes = deployed_bytes(bundle)
    rate = None
    if images:
        tracked = progress.track(images, "images")
        rate = bundle_rates(Device(bundle, threads), bundle.preprocessing, tracked, unread, beta)
    return EncoderProfile(
        spec=spec,
        subject="bundle",
        runtime=bench.engine + ("" if manifest.precision == "fp32" else f", {manifest.precision}"),
        device="cpu",
        source=manifest.provenance.source,
        weights=manifest.provenance.weights,
        seed=manifest.provenance.seed,
        model_id=manifest.provenance.model_id,
        size=Size(
            parameters=encoder_parameters(model),
            encoder_bits=encoder_bits(model),
            sc2bench_encoder_bits=sc2bench_encoder_bits(model, bundle.codec().coder),
            graph_bytes=graph_bytes,
            tables_bytes=tables_bytes,
        ),
        compute=count_flops(model),
        edge_compute=count_edge_flops(model),
        latency=_latency(bench.latency, threads, warmup, iterations),
        peak_memory_bytes=bench.peak_memory_bytes,
        peak_memory_of="the whole process: Python, the engine and the device half",
        rate=rate,
        not_measured=_left_out(rate, spec.bottleneck.kind),
        environment=bench.environment | {"splitzoo": __version__},
        date=_today(),
        command=command,
    )


def _latency(steps: dict, threads: int, warmup: int, iterations: int) -> LatencyReport:
    return LatencyReport(
        threads=threads,
        warmup=warmup,
        iterations=iterations,
        steps={name: StepLatency.model_validate(step) for name, step in steps.items()},
    )


def _left_out(rate: Rate | None, kind: str) -> list[str]:
    found = [
        "preprocessing (reading, resizing) in the latency",
        "entropy coding in the operations",
    ]
    if rate is None:
        found.append("bytes per image (give images with --images DIR)")
    elif kind not in COUNTED_BY_SC2BENCH:
        found.append(UNCOUNTED_BY_SC2BENCH)
    return found


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
