"""What each side of ``speed.py`` does, in a process of its own: it times tasks, and checks itself.

    python benchmarks/speed_sides.py SIDE FOLDER ITERATIONS

``SIDE`` is ``sc2bench`` or the name of a bundle that ``speed_prepare.py`` wrote into the folder.
Writes a :class:`Turn` to ``FOLDER/turn.json``.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from speed_report import Agreement, Turn
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
    THREADS,
    Kind,
    Task,
)

WARMUP = 10
Tasks = dict[Task, Callable[[], object]]


def measure_bundle(kind: Kind, work: Path, iterations: int) -> Turn:
    """Time the halves of a bundle."""
    from splitrun.bundle import open_bundle
    from splitrun.halves import Device, Edge

    bundle, exact = open_bundle(work / kind.folder), np.load(work / "exact.npz")
    stream = (work / "0.sz").read_bytes()
    tasks: Tasks = {}
    device = edge = None
    if not kind.open_batch:
        device = Device(bundle, THREADS)
        images, photo = np.load(work / "images.npy"), first_photo(work)
    if device and kind.has_device:
        image, coder, load = images[:1], device.codec.coder, bundle.preprocessing.load
        symbols = device.wire_tensors(image)[0][0]
        tasks |= {
            ENCODE: lambda: device.encode(image),
            ENCODER: lambda: device.wire_tensors(image),
            ENTROPY_ENCODING: lambda: coder.encode(symbols),
            IMAGE: lambda: device.encode(load(photo)),
            PREPROCESSING: lambda: load(photo),
        }
    if kind.has_edge:
        edge = Edge(bundle, THREADS)
        frame, decoder = edge.codec.unframe(stream), edge.codec.coder
        if kind.open_batch:
            tasks |= {task: decode_batch(edge, work, size) for size, task in BATCHES.items()}
        else:
            tasks |= {
                DECODE: lambda: edge.decode(stream),
                ENTROPY_DECODING: lambda: decoder.decode(*frame),
            }
    seconds, foreign = time_tasks(tasks, iterations)
    half = device or edge
    agreement = None
    if device:
        found = np.concatenate([device.wire_tensors(one[None])[0] for one in images])
        payloads = [len(device.codec.coder.encode(one)) for one in found]
        tables = device.codec.coder.arrays()
        logits = edge.decode(stream)[0] if edge else None
        agreement = compare(exact, found, payloads, logits, tables)
    return Turn(half.graph.engine, seconds, foreign, agreement)


def decode_batch(edge, work: Path, size: int) -> Callable[[], object]:
    """Return what decodes so many streams, those of the images in turn, as one batch."""
    streams = [one.read_bytes() for one in sorted(work.glob("*.sz"))]
    chosen = [streams[number % len(streams)] for number in range(size)]

    def decode() -> object:
        parts = zip(*(edge.decompress(stream) for stream in chosen), strict=True)
        return edge.graph([np.concatenate(part) for part in parts])

    return decode


def measure_sc2bench(work: Path, iterations: int) -> Turn:
    """Time the same with sc2bench's model under ``inference_mode``, as its own evaluation runs."""
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from sc2bench.models.backbone import splittable_resnet
    from torch import nn
    from torchvision import transforms

    from splitrun.bundle import open_bundle

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    sizes = {"num_bottleneck_channels": 24, "num_target_channels": 256}
    model = splittable_resnet(
        {"key": "FPBasedResNetBottleneck", "kwargs": sizes},
        resnet_name="resnet50",
        skips_avgpool=False,
        skips_fc=False,
    ).eval()
    # Its own load_state_dict accepts anything; torch's says what was left out.
    weights = load_file(work / "weights.safetensors")
    loaded = nn.Module.load_state_dict(model, weights, strict=False)
    made_anew = {"_offset", "_quantized_cdf", "_cdf_length"}
    if loaded.unexpected_keys or {n.rpartition(".")[2] for n in loaded.missing_keys} != made_anew:
        raise RuntimeError(f"The weights do not fit sc2bench's model: {loaded}")
    bottleneck = model.bottleneck_layer
    bottleneck.update()
    prior = bottleneck.entropy_bottleneck
    tail = nn.Sequential(
        model.layer2, model.layer3, model.layer4, model.avgpool, nn.Flatten(), model.fc
    )
    ours = open_bundle(work / KINDS[0].folder).preprocessing
    mode = transforms.InterpolationMode[ours.interpolation.upper()]
    transform = transforms.Compose(
        [
            transforms.Resize(ours.resize, mode),
            transforms.CenterCrop(ours.crop),
            transforms.ToTensor(),
            transforms.Normalize(ours.mean, ours.std),
        ]
    )
    photo = first_photo(work)

    def load() -> torch.Tensor:
        with Image.open(photo) as opened:
            return transform(opened.convert("RGB"))[None]

    images = torch.from_numpy(np.load(work / "images.npy"))
    image = images[:1]
    with torch.inference_mode():
        latent, encoded = bottleneck.encoder(image), bottleneck.encode(image)
        strings, shape = encoded["strings"][0], encoded["shape"]
        every = [bottleneck.encode(one[None])["strings"][0][0] for one in images]

        def decode_batch(size: int) -> torch.Tensor:
            chosen = [every[number % len(every)] for number in range(size)]
            return tail(bottleneck.decode(strings=[chosen], shape=shape))

        seconds, foreign = time_tasks(
            {
                ENCODE: lambda: bottleneck.encode(image),
                ENCODER: lambda: bottleneck.encoder(image),
                ENTROPY_ENCODING: lambda: prior.compress(latent),
                IMAGE: lambda: bottleneck.encode(load()),
                PREPROCESSING: load,
                DECODE: lambda: tail(bottleneck.decode(**encoded)),
                ENTROPY_DECODING: lambda: prior.decompress(strings, shape),
                **{task: lambda size=size: decode_batch(size) for size, task in BATCHES.items()},
            },
            iterations,
        )
        medians = prior.quantiles[:, 0, 1].reshape(-1, 1, 1)
        latents = torch.cat([prior.decompress([one], shape) for one in every])
        tables = {
            "cdf": prior.quantized_cdf.numpy(),
            "length": prior.cdf_length.numpy(),
            "offset": prior.offset.numpy(),
        }
        agreement = compare(
            np.load(work / "exact.npz"),
            torch.round(latents - medians).int().numpy(),
            [len(one) for one in every],
            tail(bottleneck.decode(**encoded)).numpy()[0],
            tables,
        )
    return Turn(f"torch {torch.__version__.partition('+')[0]}", seconds, foreign, agreement)


def first_photo(work: Path) -> str:
    """Return the image that is timed."""
    return json.loads((work / "photos.json").read_text())["images"][0]


def compare(exact, symbols: np.ndarray, payloads: list[int], logits, tables: dict) -> Agreement:
    """Hold what a side computed against the model in PyTorch."""
    difference = np.abs(symbols.astype(np.int64) - exact["symbols"])
    error = None
    if logits is not None:
        wanted = exact["logits"].astype(np.float64)
        error = float(np.abs(logits.reshape(-1) - wanted).max() / np.abs(wanted).max())
    return Agreement(
        symbols=difference.size,
        symbols_differing=int(np.count_nonzero(difference)),
        largest_difference=int(difference.max()),
        payload_bytes=payloads,
        logits_relative_error=error,
        tables_equal=all(
            np.array_equal(tables[name], exact[name]) for name in ("cdf", "length", "offset")
        ),
    )


def time_tasks(tasks: Tasks, iterations: int) -> tuple[dict[str, list[float]], float | None]:
    """Return the seconds of each run after the warm-up, and the cores that others kept busy."""
    seconds: dict[str, list[float]] = {task.name: [] for task in tasks}
    busy, own, began = busy_seconds(), time.process_time(), time.perf_counter()
    for task, run in tasks.items():
        for _ in range(max(round(WARMUP * task.share), 1)):
            run()
        for _ in range(max(round(iterations * task.share), 1)):
            start = time.perf_counter()
            run()
            seconds[task.name].append(time.perf_counter() - start)
    own, took = time.process_time() - own, time.perf_counter() - began
    after = busy_seconds()
    known = busy is not None and after is not None
    return seconds, max(after - busy - own, 0.0) / took if known else None


def busy_seconds() -> float | None:
    """Return the seconds that all cores together have worked since the machine began."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, stat.read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    side, place, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if side == PEER:
        turn = measure_sc2bench(place, count)
    else:
        turn = measure_bundle(next(one for one in KINDS if one.name == side), place, count)
    (place / "turn.json").write_text(json.dumps(asdict(turn)))
