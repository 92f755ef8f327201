"""Measure what a link costs: the two halves in two processes, beside image codecs and no link."""

import bisect
import contextlib
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from splitrun.bundle import open_bundle
from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import BundleError, SplitzooError
from splitrun.files import new_file
from splitrun.halves import Device, Edge
from splitrun.machine import machine, versions
from splitrun.measure import Latency
from splitrun.sending.links import Link
from splitrun.text import json_text

from ... import __version__
from ...progress import SILENT, Progress
from .halves import SPLIT, STAGES, WHOLE, Setup, Way, WholeNetwork, first_word

QUALITIES = {
    "jpeg": (1, 5, 10, 20, 30, 40, 60, 80, 95),
    "webp": (0, 5, 10, 20, 35, 50, 80, 95),
    "avif": (0, 10, 20, 30, 40, 60, 80, 95),
}
_WARMUP = 2


@dataclass(frozen=True)
class WayReport:
    """What one way from image to answer took.

    Attributes:
        name: Name of the way.
        quality: Quality of the image codec; None where there is none.
        score: Share of the images that are named correctly, or as the whole network does.
        bytes_mean: Mean bytes of an image's content on the link.
        air_bytes_mean: The same with what the link's frames add.
        stages: Latency of each stage and of all together.
    """

    name: str
    quality: int | None
    score: float
    bytes_mean: float
    air_bytes_mean: float
    stages: dict[str, Latency]


@dataclass(frozen=True)
class LinkReport:
    """What a link costs.

    Attributes:
        model: Name of the split model.
        whole: Name of the whole network that image codecs send to.
        link: The link.
        rtt_ms: Round trip of an empty message.
        every_ms: Time between two images; 0 where one began when the last was answered.
        beta: β that the split model encoded at; None: its own.
        images: Number of images.
        score_of: What a score says: images named correctly, or as by the whole network.
        ways: The ways, the split model first.
        environment: Machine and versions.
        date: Day of the measurement.
        command: Command line.
    """

    model: str
    whole: str
    link: Link
    rtt_ms: float
    every_ms: float
    beta: float | None
    images: int
    score_of: str
    ways: list[WayReport]
    environment: dict[str, str]
    date: str
    command: str

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write it as JSON.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        with new_file(path, force=force) as temporary:
            text = json_text(TypeAdapter(LinkReport).dump_python(self, mode="json"))
            temporary.write_text(text + "\n", encoding="utf-8")


def measure_link(
    folder: Path,
    images: Sequence[Path],
    link: Link,
    *,
    rtt_ms: float = 0.0,
    every_ms: float = 0.0,
    beta: float | None = None,
    whole: Path | None = None,
    codecs: Sequence[str] = tuple(QUALITIES),
    threads: int = 0,
    trust: bool = False,
    command: str = "",
    progress: Progress = SILENT,
) -> LinkReport:
    """Run the halves of a bundle in two processes over a paced socket; see :class:`LinkReport`.

    Image codecs send to a whole network, in the least bytes with which it does as well as the split
    model, or as without a codec where that is worse, at one quality for all images.

    Args:
        folder: Folder of the split bundle.
        images: Images to send; names of folders that are labels of the model are the truth.
        link: Link to be as slow as.
        rtt_ms: Round trip of an empty message.
        every_ms: Time between two images; 0 begins one when the last is answered.
        beta: β that chooses the level of a model of variable rate; None: the bundle's.
        whole: Bundle of a whole network behind an image codec, such as one of ``…-png``; None takes
            the teacher where its weights are at hand, or else both halves.
        codecs: Image codecs to measure beside it.
        threads: Threads for each engine; 0 lets it choose.
        trust: Whether to run graphs of any operators.
        command: Command line that the report names.
        progress: Progress to report to.

    Raises:
        BundleError: The bundle cannot be read, or lacks a half.
        RateError: The model's rate is fixed, or β is outside its range.
    """
    bundle = open_bundle(folder, trust=trust)
    for half in ("device", "edge"):
        bundle.check_here(half)
    bundle.codec().at(beta)
    with _whole(bundle.name, whole, progress) as other:
        progress.step("looking for qualities that do as well")
        network = WholeNetwork(str(folder), str(other or ""), threads, trust=trust)
        device = Device(bundle, threads, stand_in=True)
        edge = Edge(bundle, threads, tail=next(iter(bundle.edge.tails)), stand_in=True)
        pixels = [network.pixels(path) for path in images]
        labels = set(bundle.labels(bundle.tail(next(iter(bundle.edge.tails)))))
        is_labelled = all(path.parent.name in labels for path in images)
        wholes = [network.answer(image) for image in pixels]
        truth = [path.parent.name for path in images] if is_labelled else wholes
        said = [first_word(edge, edge.decode(device.encode_image(path, beta))) for path in images]
        # Where the whole network does worse, no quality would do as well as the split model.
        least = min(_score(said, truth), _score(wholes, truth))
        ways = [Way(SPLIT)]
        for codec in progress.track(codecs, "image codecs"):
            ways.append(Way(codec, _quality(codec, network, pixels, truth, least)))
        ways.append(Way(WHOLE))
        del network, device, edge
        setup = Setup(
            bundle=str(folder),
            whole=str(other or ""),
            images=[str(path) for path in images],
            ways=ways,
            link=link,
            rtt_ms=rtt_ms,
            every_ms=every_ms,
            beta=beta,
            warmup=min(_WARMUP, len(images)),
            threads=threads,
            trust=trust,
        )
        progress.step("sending")
        told = list(progress.track(_run(setup), "images", total=len(ways) * len(images)))
        name = open_bundle(other).name if other else f"{bundle.name}, both halves"
    return LinkReport(
        model=bundle.name,
        whole=name,
        link=link,
        rtt_ms=rtt_ms,
        every_ms=every_ms,
        beta=beta,
        images=len(images),
        score_of="correct" if is_labelled else "as the whole network says",
        ways=[_report(way, number, told, truth, link) for number, way in enumerate(ways)],
        environment=machine()
        | {"splitzoo": __version__}
        | versions("onnxruntime", "constriction", "numpy", "pillow"),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        command=command,
    )


@contextlib.contextmanager
def _whole(name: str, given: Path | None, progress: Progress) -> Iterator[Path | None]:
    """Give the bundle of the whole network: that given, or the teacher's where it is at hand."""
    from ...export import split
    from ...zoo.catalog import has_weights, load
    from ...zoo.models import is_name
    from ...zoo.packaged import packaged_folder

    if given is not None:
        if open_bundle(given).manifest.coding.kind != "pixels":
            raise BundleError(
                f"{given} is not of a whole network behind an image codec.",
                next_step="Export one: splitzoo export split MODEL-png -o whole",
            )
        yield given
        return
    record = load(name).training_record if packaged_folder(name) else None
    teacher = record.teacher.partition(" ")[0] if record else ""
    if not is_name(teacher) or not has_weights(teacher):
        yield None
        return
    progress.step(f"exporting {teacher}")
    with tempfile.TemporaryDirectory() as place:
        split(load(teacher), Path(place, "whole"), target="cpu")
        yield Path(place, "whole")


def _score(said: Sequence[str], truth: Sequence[str]) -> float:
    return statistics.fmean(word == right for word, right in zip(said, truth, strict=True))


def _quality(
    codec: str, network: WholeNetwork, pixels: Sequence[Any], truth: Sequence[str], least: float
) -> int:
    """Return the least quality with which the network does as well; the best where none is."""

    def does(quality: int) -> bool:
        coder = PixelsCoder(codec, quality)
        said = []
        for image in pixels:
            (decoded,) = coder.decode(coder.encode(image), *image.shape[1:])
            said.append(network.answer(decoded))
        return _score(said, truth) >= least

    qualities = QUALITIES[codec]
    # As if more quality never did worse, which on few images it may.
    return qualities[min(bisect.bisect_left(qualities, True, key=does), len(qualities) - 1)]


def _run(setup: Setup) -> Iterator[dict[str, Any]]:
    """Start both processes, and give what the device says of each image.

    Raises:
        SplitzooError: One of them ended with an error.
    """
    with contextlib.ExitStack() as stack:

        def start(half: str, told: Setup) -> subprocess.Popen[str]:
            # Into a file: nobody reads a pipe meanwhile, and a full one would hold the process up.
            errors[half] = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [sys.executable, "-m", "splitzoo.profile.link.halves", half, told.to_json()],
                stdout=subprocess.PIPE,
                stderr=errors[half],
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        errors: dict[str, IO[str]] = {}
        edge = start("edge", setup)
        assert edge.stdout
        port = edge.stdout.readline().strip()
        if not port:
            raise _failure("edge", errors["edge"])
        device = start("device", replace(setup, port=int(port)))
        assert device.stdout
        for line in device.stdout:
            yield json.loads(line)
        if device.wait():
            # Where the edge ended, the device only misses its answer.
            half = "edge" if edge.poll() else "device"
            raise _failure(half, errors[half])


def _failure(half: str, errors: IO[str]) -> SplitzooError:
    errors.seek(0)
    last = errors.read().strip().splitlines()[-1:]
    return SplitzooError(f"The process of the {half} ended: {' '.join(last) or 'without a word'}.")


def _report(
    way: Way, number: int, told: Sequence[dict[str, Any]], truth: Sequence[str], link: Link
) -> WayReport:
    own = [line for line in told if line["way"] == number]
    stages = {name: Latency.of([line["stages"][name] for line in own]) for name in STAGES}
    stages["total"] = Latency.of([line["total"] for line in own])
    return WayReport(
        name=way.name,
        quality=None if way.name in (SPLIT, WHOLE) else way.quality,
        score=_score([line["word"] for line in own], truth),
        bytes_mean=statistics.fmean(line["bytes"] for line in own),
        air_bytes_mean=statistics.fmean(link.bytes_on_air(line["bytes"]) for line in own),
        stages=stages,
    )
