"""What each side of ``sc2bench_speed.py`` does, in a process of its own.

    python benchmarks/sc2bench_sides.py STAGE FOLDER ITERATIONS

The stage ``prepare`` writes what both sides read into the folder; the stages ``splitzoo`` and
``sc2bench`` time the same four tasks there and write a :class:`Turn`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

MODEL = "splittable_resnet50-fp-beta0.08"
THREADS = 2
WARMUP = 10
TABLE_BUFFERS = {"_offset", "_quantized_cdf", "_cdf_length"}  # sc2bench's update() makes them anew


@dataclass(frozen=True)
class Turn:
    """One turn of one side.

    Attributes:
        seconds: Of each timed run, by task.
        payload_bytes: Of each photograph: what the entropy coder wrote, without any frame.
        foreign_cores: That other processes kept busy meanwhile; None where it cannot be known.
    """

    seconds: dict[str, list[float]]
    payload_bytes: list[int]
    foreign_cores: float | None


def prepare(folder: Path, _iterations: int) -> None:
    """Write the bundle, its weights under sc2bench's names, and the images."""
    from safetensors.torch import save_file

    from splitzoo import zoo
    from splitzoo.export.split import export_split

    model = zoo.load(MODEL, pretrained=False, seed=0)
    export_split(model, folder / "bundle", target="cpu")
    weights = {
        sc2bench_key(name): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[2] not in TABLE_BUFFERS
    }
    save_file(weights, folder / "weights.safetensors")
    photos = json.loads((folder / "photos.json").read_text())
    load = model.spec.preprocessing.load
    np.save(folder / "images.npy", np.concatenate([load(photo) for photo in photos]))


def sc2bench_key(name: str) -> str:
    """Return what sc2bench calls a tensor of ours."""
    for ours, theirs in (
        ("encoder.", "bottleneck_layer.encoder."),
        ("coder.", "bottleneck_layer."),
        ("decoder.g_s.", "bottleneck_layer.decoder."),
        ("decoder.tail.", ""),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def measure_splitzoo(folder: Path, iterations: int) -> Turn:
    """Time the halves of the bundle, and keep what they computed on the first image."""
    from splitzoo.export.runtime.bundle import open_bundle
    from splitzoo.export.runtime.halves import Device, Edge

    bundle = open_bundle(folder / "bundle")
    device, edge = Device(bundle, THREADS), Edge(bundle, THREADS)
    coder = device.codec.coder
    images = np.load(folder / "images.npy")
    image = images[:1]
    symbols, stream = device.tensors(image)[0][0], device.encode(image)[0]
    frame = device.codec.unframe(stream)
    np.savez(
        folder / "splitzoo.npz",
        symbols=coder.decode(*frame)[0],
        logits=edge.decode(stream)[0],
        **{name: table for name, table in coder.arrays().items() if name != "precision"},
    )
    seconds, foreign = time_tasks(
        {
            "device path": lambda: device.encode(image),
            "edge path": lambda: edge.decode(stream),
            "entropy encoding": lambda: coder.encode(symbols),
            "entropy decoding": lambda: coder.decode(*frame),
        },
        iterations,
    )
    payloads = [coder.encode(device.tensors(one[None])[0][0]) for one in images]
    return Turn(seconds, [len(payload) for payload in payloads], foreign)


def measure_sc2bench(folder: Path, iterations: int) -> Turn:
    """Time the same with sc2bench's model under ``inference_mode``, as its own evaluation runs."""
    import torch
    from safetensors.torch import load_file
    from sc2bench.models.backbone import splittable_resnet
    from torch import nn

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
    weights = load_file(folder / "weights.safetensors")
    loaded = nn.Module.load_state_dict(model, weights, strict=False)
    if (
        loaded.unexpected_keys
        or {n.rpartition(".")[2] for n in loaded.missing_keys} != TABLE_BUFFERS
    ):
        raise RuntimeError(f"The weights do not fit sc2bench's model: {loaded}")
    bottleneck = model.bottleneck_layer
    bottleneck.update()
    prior = bottleneck.entropy_bottleneck
    tail = nn.Sequential(
        model.layer2, model.layer3, model.layer4, model.avgpool, nn.Flatten(), model.fc
    )
    images = torch.from_numpy(np.load(folder / "images.npy"))
    image = images[:1]
    with torch.inference_mode():
        latent, encoded = bottleneck.encoder(image), bottleneck.encode(image)
        strings, shape = encoded["strings"][0], encoded["shape"]
        medians = prior.quantiles[:, 0, 1].reshape(-1, 1, 1)
        np.savez(
            folder / "sc2bench.npz",
            symbols=torch.round(prior.decompress(strings, shape)[0] - medians).int().numpy(),
            logits=tail(bottleneck.decode(**encoded)).numpy(),
            cdf=prior.quantized_cdf.numpy(),
            length=prior.cdf_length.numpy(),
            offset=prior.offset.numpy(),
        )
        seconds, foreign = time_tasks(
            {
                "device path": lambda: bottleneck.encode(image),
                "edge path": lambda: tail(bottleneck.decode(**encoded)),
                "entropy encoding": lambda: prior.compress(latent),
                "entropy decoding": lambda: prior.decompress(strings, shape),
            },
            iterations,
        )
        payloads = [bottleneck.encode(one[None])["strings"][0][0] for one in images]
    return Turn(seconds, [len(payload) for payload in payloads], foreign)


def time_tasks(
    tasks: dict[str, Callable[[], object]], iterations: int
) -> tuple[dict[str, list[float]], float | None]:
    """Return the seconds of each run after the warm-up, and the cores that others kept busy."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    busy, own, began = busy_seconds(), time.process_time(), time.perf_counter()
    for name, task in tasks.items():
        for _ in range(WARMUP):
            task()
        for _ in range(iterations):
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
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


STAGES = {"prepare": prepare, "splitzoo": measure_splitzoo, "sc2bench": measure_sc2bench}

if __name__ == "__main__":
    stage, work = sys.argv[1], Path(sys.argv[2])
    if turn := STAGES[stage](work, int(sys.argv[3])):
        (work / f"{stage}.json").write_text(json.dumps(asdict(turn)))
