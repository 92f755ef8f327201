"""Run images through the two halves of a bundle, each in a process of its own."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from splitrun.bench import Bench
from splitrun.bundle import open_bundle
from splitrun.bundle_layout import HALVES
from splitrun.errors import BundleError, ImageError, SplitzooError, check_files_used
from splitrun.halves import check_code
from splitrun.image_reading import upright_size
from splitrun.measure import Latency
from splitrun.predictions import ClassScore, Prediction
from splitrun.predictions.detection import Detection
from splitrun.predictions.segmentation import ClassShare

from .targets import offer_engines


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


@dataclass(frozen=True)
class RunLimits:
    """What a bundle that is not trusted may take.

    Attributes:
        seconds: Longest time of a process, for each of its images; None for any.
        memory_gib: Most memory of a process, GiB.
    """

    seconds: float | None = 300
    memory_gib: int = 8


LIMITS_OF_RUNS = RunLimits()


_IMAGES_AT_ONCE = 32
"""Images for which two processes are started; what came of them is told when both have ended."""


@dataclass(frozen=True)
class ImageFault:
    """An image that could not be used, and why."""

    image: str
    error: SplitzooError


def run(
    folder: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    beta: float | None = None,
    threads: int = 0,
    trust: bool = False,
    limits: RunLimits = LIMITS_OF_RUNS,
) -> list[ImageRun]:
    """Encode images in one process and decode the streams in another.

    Neither process imports torch, unless the graphs are PyTorch's, and none of the bundle's own
    code is run.

    Args:
        folder: Folder of the bundle.
        images: Image files.
        top: Number of classes or objects to return for each.
        beta: β to encode at, where the model's rate varies.
        threads: Number of threads for the engine; 0 lets it choose.
        trust: Whether to run graphs of any operators and of formats that can hold code, without
            limits.
        limits: Time and memory that each process may take.

    Raises:
        BundleError: The bundle cannot be read, lacks a half, is not trusted, or reached a limit.
        ImageError: The only image cannot be used.
        SomeFilesError: Some of several images cannot be used.
    """
    runs = [
        one
        for some in run_some(
            folder, images, top=top, beta=beta, threads=threads, trust=trust, limits=limits
        )
        for one in some
    ]
    faults = [one.error for one in runs if isinstance(one, ImageFault)]
    check_files_used("images", len(images), faults)
    return [one for one in runs if isinstance(one, ImageRun)]


def run_some(
    folder: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    beta: float | None = None,
    threads: int = 0,
    trust: bool = False,
    limits: RunLimits = LIMITS_OF_RUNS,
) -> Iterator[list[ImageRun | ImageFault]]:
    """Run images as :func:`run` does, and give what came of them, some at a time.

    Raises:
        BundleError: The bundle cannot be read, lacks a half, is not trusted, or reached a limit.
    """
    bundle = Path(folder)
    opened = open_bundle(bundle)
    for half in HALVES:
        opened.check_here(half)
    if not trust:
        check_code(opened)
    opened.codec().at(beta)  # raises before processes are started
    for first in range(0, len(images), _IMAGES_AT_ONCE):
        yield _run_some(
            bundle,
            images[first : first + _IMAGES_AT_ONCE],
            top,
            beta,
            threads,
            None if trust else limits,
        )


def _run_some(
    bundle: Path,
    images: Sequence[str | Path],
    top: int,
    beta: float | None,
    threads: int,
    limits: RunLimits | None,
) -> list[ImageRun | ImageFault]:
    options: dict[str, Any] = {"threads": threads, "limits": limits}
    with tempfile.TemporaryDirectory() as link:
        words = ["--numbered", "--stand-in", f"--output={link}"]
        words += [] if beta is None else [f"--beta={beta!r}"]
        try:
            encoded = call_runtime(bundle, "encode", *words, files=images, **options)
        except ImageError as error:  # the only image
            return [ImageFault(str(images[0]), error)]
        sent = {int(Path(stream["stream"]).stem): stream for stream in encoded["streams"]}
        faults = [SplitzooError.of_document(document) for document in encoded["errors"]]
        decoded: dict[str, Any] = {"outputs": []}
        if sent:
            sizes = ("{}x{}".format(*upright_size(images[number])) for number in sent)
            words = ("--stand-in", f"--top={top}", *(f"--image-size={size}" for size in sizes))
            streams = [stream["stream"] for stream in sent.values()]
            decoded = call_runtime(bundle, "decode", *words, files=streams, **options)
        if decoded.get("errors"):
            raise SplitzooError.of_document(decoded["errors"][0])
    predictions = dict(zip(sent, decoded["outputs"], strict=True))
    return [
        _image_run(str(image), encoded["engine"], sent[number], predictions[number])
        if number in sent
        else ImageFault(str(image), faults.pop(0))
        for number, image in enumerate(images)
    ]


def _image_run(
    image: str, engine: str, stream: dict[str, Any], prediction: dict[str, Any]
) -> ImageRun:
    detections = [{**one, "box": tuple(one["box"])} for one in prediction["detections"]]
    return ImageRun(
        image=image,
        engine=engine,
        payload_bytes=stream["payload_bytes"],
        stream_bytes=stream["stream_bytes"],
        top=[ClassScore(**score) for score in prediction["top"]],
        detections=[Detection(**one) for one in detections],
        shares=[ClassShare(**one) for one in prediction["shares"]],
    )


def bench_bundle(
    folder: str | Path,
    half: Literal["device", "edge"],
    *,
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    beta: float | None = None,
    trust: bool = False,
) -> Bench:
    """Measure one half of a bundle in a process of its own; see :func:`.bench.bench_half`.

    Raises:
        BundleError: The bundle cannot be read; or its graphs can hold code, and it is not trusted.
    """
    if not trust:
        check_code(open_bundle(Path(folder)))
    # It takes as long as its iterations; operators are looked at, as ever.
    limits = None if trust else RunLimits(seconds=None, memory_gib=1_000_000)
    options = [f"--half={half}", f"--warmup={warmup}", f"--iterations={iterations}"]
    options += [] if beta is None else [f"--beta={beta!r}"]
    (measured,) = call_runtime(Path(folder), "bench", *options, threads=threads, limits=limits)
    latency = {name: Latency(**one) for name, one in measured.pop("latency").items()}
    return Bench(**measured, latency=latency)


def call_runtime(
    bundle: Path,
    command: str,
    *options: str,
    files: Sequence[str | Path] = (),
    threads: int = 0,
    limits: RunLimits | None,
) -> Any:
    """Run a command of the torch-free runtime on a bundle, in a process of its own.

    Args:
        bundle: Folder of the bundle.
        command: Name of the command.
        options: Options of the command.
        files: Files that it works on.
        threads: Number of threads for the engine; 0 lets it choose.
        limits: Time and memory that it may take; None for a bundle that is trusted.

    Returns:
        What it printed as JSON, though it failed for some of several files: ``errors`` says which.

    Raises:
        BundleError: It took longer than it may.
        SplitzooError: It failed; the error is its own.
    """
    offer_engines()
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
    words += [f"--memory-limit={limits.memory_gib}"] if limits else ["--trust"]
    seconds = limits.seconds * max(1, len(files)) if limits and limits.seconds else None
    words += ["--", *map(str, files)] if files else []
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"{command} took more than {seconds} seconds, and was stopped.",
            next_step="If this machine is that slow: --time-limit SECONDS",
        ) from error
    if done.returncode:
        with contextlib.suppress(ValueError):
            document = json.loads(done.stdout)
            if "errors" in document:
                return document
            raise SplitzooError.of_document(document)
        said = done.stderr.strip().removeprefix("error: ")
        if done.returncode < 0:
            said = f"The process for {command} was killed by signal {-done.returncode}. {said}"
        error = SplitzooError(said or f"{command} failed.")
        error.exit_code = max(done.returncode, 1)
        raise error
    return json.loads(done.stdout)
