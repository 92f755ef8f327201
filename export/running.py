"""Run images through the two halves of a bundle, each in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from splitrun.bench import Bench
from splitrun.bundle import open_bundle
from splitrun.errors import SplitzooError
from splitrun.image_reading import upright_size
from splitrun.measure import Latency
from splitrun.predictions import ClassScore, Prediction
from splitrun.predictions.detection import Detection
from splitrun.predictions.segmentation import ClassShare

from .verification import check_code


@dataclass(frozen=True)
class ImageRun:
    """What became of one image.

    Attributes:
        image: Path of the image.
        engine: Engine that ran the device graph; another where the bundle's own is not here.
        payload_bytes: Bytes from the entropy coder.
        stream_bytes: Bytes that crossed the link.
        top: Most probable classes, best first; empty for other tasks than classification.
        detections: Objects, best first; boxes in pixels of the image, upright.
        shares: Classes and how much of the model's input they cover, largest first.
    """

    image: str
    engine: str
    payload_bytes: int
    stream_bytes: int
    top: list[ClassScore]
    detections: list[Detection]
    shares: list[ClassShare]

    @property
    def prediction(self) -> Prediction:
        """The three together."""
        return Prediction(self.top, self.detections, self.shares)


def run(
    folder: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    threads: int = 0,
    trust: bool = False,
) -> list[ImageRun]:
    """Encode images in one process and decode the streams in another.

    Neither process imports torch, unless the graphs are PyTorch's, and none of the bundle's own
    code is run.

    Args:
        folder: Folder of the bundle.
        images: Image files.
        top: Number of classes or objects to return for each.
        threads: Number of threads for the engine; 0 lets it choose.
        trust: Whether to run graphs of formats that can hold code.

    Raises:
        BundleError: The bundle cannot be read, or is not trusted.
        ImageError: An image cannot be used.
    """
    bundle = Path(folder)
    check_code(open_bundle(bundle), trust=trust)
    with tempfile.TemporaryDirectory() as link:
        encoded = call_runtime(
            bundle,
            "encode",
            *("--numbered", "--stand-in", f"--output={link}"),
            files=images,
            threads=threads,
        )
        sent = encoded["streams"]
        streams = [stream["stream"] for stream in sent]
        sizes = ["{}x{}".format(*upright_size(image)) for image in images]
        image_sizes = [f"--image-size={size}" for size in sizes]
        options = ("--stand-in", f"--top={top}", *image_sizes)
        predictions = call_runtime(bundle, "decode", *options, files=streams, threads=threads)
    return [
        ImageRun(
            image=str(image),
            engine=encoded["engine"],
            payload_bytes=stream["payload_bytes"],
            stream_bytes=stream["stream_bytes"],
            top=[ClassScore(**score) for score in prediction["top"]],
            detections=[
                Detection(**{**one, "box": tuple(one["box"])}) for one in prediction["detections"]
            ],
            shares=[ClassShare(**one) for one in prediction["shares"]],
        )
        for image, stream, prediction in zip(images, sent, predictions["outputs"], strict=True)
    ]


def bench_bundle(
    folder: str | Path,
    half: Literal["device", "edge"],
    *,
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    trust: bool = False,
) -> Bench:
    """Measure one half of a bundle in a process of its own; see :func:`.bench.bench_half`.

    Raises:
        BundleError: The bundle cannot be read; or its graphs can hold code, and it is not trusted.
    """
    check_code(open_bundle(Path(folder)), trust=trust)
    options = (f"--half={half}", f"--warmup={warmup}", f"--iterations={iterations}")
    (measured,) = call_runtime(Path(folder), "bench", *options, threads=threads)
    latency = {name: Latency(**one) for name, one in measured.pop("latency").items()}
    return Bench(**measured, latency=latency)


def call_runtime(
    bundle: Path,
    command: str,
    *options: str,
    files: Sequence[str | Path] = (),
    threads: int = 0,
) -> Any:
    """Run a command of the torch-free runtime on a bundle, in a process of its own.

    Returns:
        What it printed as JSON.

    Raises:
        SplitzooError: It failed; the message and the exit code are its own.
    """
    # -P: modules that lie in the current folder, which may be the bundle, are not imported.
    words = [
        sys.executable,
        "-P",
        "-m",
        "splitrun",
        "--bundle",
        str(bundle),
        command,
    ]
    words += [*options, "--json", f"--threads={threads}"]
    words += ["--", *map(str, files)] if files else []
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().removeprefix("error: ")
        if done.returncode < 0:
            said = f"The process for {command} was killed by signal {-done.returncode}. {said}"
        error = SplitzooError(said or f"{command} failed.")
        error.exit_code = max(done.returncode, 1)
        raise error
    return json.loads(done.stdout)
