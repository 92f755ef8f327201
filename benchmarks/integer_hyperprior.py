"""What hyperpriors in integers cost: bytes, predictions and time, beside the same ones in floats.

    python benchmarks/integer_hyperprior.py --images photos --model NAME --model FOLDER

Both bundles of a model are exported for ONNX Runtime in fp32 and measured in one process, in
turns: image → stream, with h_a, h_s, scale indexes and coding; stream → the edge graph's inputs;
and stream → logits, the whole edge. Time is that of the processor, which other programs on the
machine change little. Models without weights at hand get random ones. Images in folders that are
named after the model's classes count correct predictions. Each model is kept as soon as it is
measured, beside what an earlier run made of others.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from splitrun.bundle import open_bundle
from splitrun.files import new_file
from splitrun.halves import Device, Edge
from splitrun.image_files import list_images
from splitrun.machine import machine, versions
from splitzoo import export
from splitzoo.zoo import catalog
from splitzoo.zoo.packaged import packaged_folder
from splitzoo.zoo.parts import in_floats
from splitzoo.zoo.split_model import SplitModel

RESULTS = Path(__file__).parent / "results"
TIMED = 30
"""Rounds that time is taken in; in each, both bundles run once."""


@dataclass(frozen=True)
class Measured:
    """One model, in integers and in floats.

    Attributes:
        model: Name of the model.
        weights: ``"trained"`` or ``"random"``.
        beside: What else ran on the machine.
        command: Command that measured it.
        images: Number of images.
        payload_bytes: Mean payload in integers.
        payload_bytes_float: Mean payload in floats.
        labelled: Images of a class of the model.
        correct: Those predicted correctly in integers.
        correct_float: Those in floats.
        device_ms: Median of image → stream in integers.
        device_ms_float: The same in floats.
        inputs_ms: Median of stream → inputs of the edge graph in integers.
        inputs_ms_float: The same in floats.
        edge_ms: Median of stream → logits in integers.
        edge_ms_float: The same in floats.
    """

    model: str
    weights: str
    beside: str
    command: str
    images: int
    payload_bytes: float
    payload_bytes_float: float
    labelled: int
    correct: int
    correct_float: int
    device_ms: float
    device_ms_float: float
    inputs_ms: float
    inputs_ms_float: float
    edge_ms: float
    edge_ms_float: float


def measure(
    model: SplitModel,
    images: list[Path],
    folder: Path,
    *,
    threads: int,
    beside: str,
    command: str,
) -> Measured:
    """Export both bundles of a model and measure them.

    Args:
        model: Model with a hyperprior in integers.
        images: Images to measure on.
        folder: Empty folder for the bundles.
        threads: Threads of the engine.
        beside: What else runs on the machine.
        command: Command that measures.
    """
    halves = []
    for name, given in (("integers", model), ("floats", in_floats(model))):
        export.split(given, folder / name)
        bundle = open_bundle(folder / name)
        halves.append((Device(bundle, threads), Edge(bundle, threads)))
    labels = {label: number for number, label in enumerate(model.spec.labels)}
    inputs = [model.spec.preprocessing.load(path) for path in images]
    payloads, correct, labelled = np.zeros(2), [0, 0], 0
    for path, image in zip(images, inputs, strict=True):
        labelled += path.parent.name in labels
        for number, (device, edge) in enumerate(halves):
            (stream,) = device.encode(image)
            payloads[number] += stream.payload_bytes
            best = int(edge.decode(stream)[0].argmax())
            correct[number] += best == labels.get(path.parent.name)
    times = np.empty((2, 3, TIMED))
    for turn in range(-3, TIMED):
        image = inputs[turn % len(inputs)]
        for number, (device, edge) in enumerate(halves):
            began = time.process_time()
            (stream,) = device.encode(image)
            between = time.process_time()
            received = edge.decompress(stream)
            decoded = time.process_time()
            edge.graph(received)
            ended = time.process_time()
            if turn >= 0:
                times[number, :, turn] = between - began, decoded - between, ended - between
    integers, floats = (1000 * np.median(times, axis=2)).tolist()
    return Measured(
        model=model.spec.name,
        weights="trained" if model.random_seed is None else "random",
        beside=beside,
        command=command,
        images=len(images),
        payload_bytes=payloads[0] / len(images),
        payload_bytes_float=payloads[1] / len(images),
        labelled=labelled,
        correct=correct[0],
        correct_float=correct[1],
        device_ms=integers[0],
        device_ms_float=floats[0],
        inputs_ms=integers[1],
        inputs_ms_float=floats[1],
        edge_ms=integers[2],
        edge_ms_float=floats[2],
    )


def render(measured: list[Measured]) -> str:
    """Render the results as Markdown, with the commands."""
    lines = [
        "# Hyperpriors in integers",
        "",
        "| model | weights | images | payload, bytes | in floats | | correct | in floats | "
        "image → stream, ms | in floats | | stream → edge inputs, ms | in floats | | "
        "stream → logits, ms | in floats | | meanwhile |",
        f"| --- | --- |{15 * ' ---: |'} --- |",
    ]
    for one in measured:
        more = one.payload_bytes / one.payload_bytes_float - 1
        of = f" of {one.labelled}" if one.labelled else ""
        correct = [str(found) if of else "–" for found in (one.correct, one.correct_float)]
        cells = (
            f"`{one.model}`",
            one.weights,
            one.images,
            f"{one.payload_bytes:,.1f}",
            f"{one.payload_bytes_float:,.1f}",
            f"{more:+.2%}",
            correct[0] + of,
            correct[1],
            f"{one.device_ms:.2f}",
            f"{one.device_ms_float:.2f}",
            f"× {one.device_ms / one.device_ms_float:.2f}",
            f"{one.inputs_ms:.2f}",
            f"{one.inputs_ms_float:.2f}",
            f"× {one.inputs_ms / one.inputs_ms_float:.2f}",
            f"{one.edge_ms:.2f}",
            f"{one.edge_ms_float:.2f}",
            f"× {one.edge_ms / one.edge_ms_float:.2f}",
            one.beside,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    here = machine()
    with_versions = versions("onnxruntime", "numpy", "constriction")
    commands = dict.fromkeys(f"`{one.command}`" for one in measured)
    lines += [
        "",
        f"Made by {', '.join(commands)} with "
        + ", ".join(f"{name} {number}" for name, number in with_versions.items())
        + f", {', '.join(map(str, here.values()))}.",
        "",
    ]
    return "\n".join(lines)


def keep(measured: Measured) -> None:
    """Put one model into the results, in the place of an earlier measurement of it."""
    path = RESULTS / "integer_hyperprior.json"
    before = [Measured(**one) for one in json.loads(path.read_bytes())] if path.exists() else []
    whole = list(({one.model: one for one in before} | {measured.model: measured}).values())
    for suffix, text in (
        ("md", render(whole)),
        ("json", json.dumps([asdict(one) for one in whole], indent=2) + "\n"),
    ):
        with new_file(path.with_suffix(f".{suffix}"), force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure and write ``results/integer_hyperprior.md`` and ``.json``."""
    parser = argparse.ArgumentParser(description="What hyperpriors in integers cost.")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--model", action="append", required=True, help="name or folder")
    parser.add_argument("--most", type=int, default=64, help="most images of a model")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine")
    parser.add_argument("--beside", default="nothing else ran", help="what else ran meanwhile")
    given = parser.parse_args()
    images = list_images(given.images)
    images = images[:: -(-len(images) // given.most)]
    command = shlex.join(["python", *sys.argv])
    for name in given.model:
        trained = Path(name).is_dir() or packaged_folder(name) is not None
        model = catalog.load(name, pretrained=trained)
        with tempfile.TemporaryDirectory() as folder:
            one = measure(
                model,
                images,
                Path(folder),
                threads=given.threads,
                beside=given.beside,
                command=command,
            )
        print(one, flush=True)
        keep(one)


if __name__ == "__main__":
    main()
