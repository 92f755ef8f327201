"""The public functions of ``splitzoo.profile``: measure the device half, accuracy and bytes.

>>> from splitzoo import profile
>>> report = profile.encoder("bundle", images=photos)
>>> profile.accuracy("bundle", "flowers/val").save("bundle.json")
>>> profile.tradeoff(["bundle.json", "others"], "figure").bd_rates("JPEG input")

Each takes a :class:`~splitzoo.zoo.SplitModel`, a registered name, the folder of a saved model or of
a bundle, or a repository on the Hub. A model runs in PyTorch, a bundle in its own runtime.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..progress import SILENT, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..zoo.split_model import SplitModel
    from .accuracy_report import AccuracyReport
    from .bit_maps import BitMap
    from .choosing.choose import Choice
    from .report import EncoderProfile
    from .tradeoffs import Tradeoff

    Model: TypeAlias = SplitModel | str | Path

__all__ = ["accuracy", "bits", "choose", "encoder", "tradeoff"]


def encoder(
    model: "Model",
    *,
    images: "str | Path | Iterable[str | Path]" = (),
    threads: int = 0,
    warmup: int = 10,
    iterations: int = 100,
    beta: float | None = None,
    trust: bool = False,
    command: str = "",
    progress: Progress = SILENT,
) -> "EncoderProfile":
    """Measure the device half: size, operations, latency, memory and bytes per image.

    Args:
        model: Model, name, folder of a model or bundle, or repository.
        images: Folder or files of images to measure bytes on; without any, bytes are left out.
        threads: Number of threads; 0 lets PyTorch or the engine choose.
        warmup: Runs before the timed ones.
        iterations: Timed runs.
        beta: β to encode at, where the model's rate varies.
        trust: Whether to run a bundle's graphs though their format can hold code.
        command: Command line that the report names as its origin.
        progress: Progress to report to.

    Raises:
        UnknownNameError: No model has that name.
        BundleError: The bundle cannot be read.
        ImageError: None of the images can be used.
    """
    from splitrun.image_files import FoundImages, find_some_images

    from ..zoo.resolve import ModelSource
    from ..zoo.split_model import SplitModel
    from .measure import profile_bundle, profile_model

    if isinstance(images, str | Path):
        found = find_some_images(Path(images))
    else:
        found = FoundImages([Path(image) for image in images], [])
    options: dict[str, Any] = {
        "images": found.images,
        "unread": found.unread,
        "threads": threads,
        "warmup": warmup,
        "iterations": iterations,
        "command": command,
        "progress": progress,
    }
    if isinstance(model, SplitModel):
        return profile_model(model.at(beta), **options)
    source = ModelSource.of(model)
    if source.bundle:
        return profile_bundle(source.bundle, **options, beta=beta, trust=trust)
    return profile_model(source.load().at(beta), **options)


def accuracy(
    model: "Model",
    data: str | Path,
    *,
    predictions: str | Path | None = None,
    beta: float | None = None,
    workers: int = 1,
    threads: int = 1,
    processes: int = 1,
    trust: bool = False,
    keep: str | Path | None = None,
    against: "Model | None" = None,
    command: str = "",
    progress: Progress = SILENT,
) -> "AccuracyReport":
    """Measure accuracy and bytes per image over a data set, through the real bitstream.

    Args:
        model: Model, name, folder of a model or bundle, or repository.
        data: Folder with one folder per class, COCO 2017 or PASCAL VOC 2012.
        predictions: Folder of predictions and streams that a bundle of ``model`` gave elsewhere.
        beta: β to encode at, where the model's rate varies.
        workers: Threads that read images, where one process measures.
        threads: Number of threads of PyTorch or the engine; see :func:`.evaluate.evaluate`.
        processes: Number of processes that share the images of a model that has a name or folder,
            with so many threads each. A script that asks for several needs the usual
            ``if __name__ == "__main__":``, since each process imports it.
        trust: Whether to run a bundle's graphs though their format can hold code.
        against: Classifier to compare with, image by image, such as the teacher.
        keep: File for results as they come, so that an interrupted evaluation goes on.
        command: Command line that the report names as its origin.
        progress: Progress to report to.

    Raises:
        UnknownNameError: No model has that name.
        BundleError: The bundle cannot be read.
        DatasetError: The data set cannot be read, or has a class that the model lacks.
        ReportError: A model that is no classifier is to be compared, or one of several processes
            ended.
        UsageError: Several processes are to open a model that is in this one's memory alone.
    """
    from ..zoo.resolve import ModelSource
    from ..zoo.split_model import SplitModel
    from .evaluate import evaluate
    from .subjects import ModelSubject, PredictionsSubject, open_subject, read_labelled

    folder = Path(predictions) if predictions else None
    if not isinstance(model, SplitModel):
        source = ModelSource.of(model)
        subject = open_subject(source, predictions=folder, beta=beta, threads=threads, trust=trust)
    else:
        model = model.at(beta)
        subject = PredictionsSubject(folder, model) if folder else ModelSubject(model)
    other = None
    if isinstance(against, SplitModel):
        other = ModelSubject(against)
    elif against is not None:
        other = open_subject(ModelSource.of(against), threads=threads, trust=trust)
    report, _ = evaluate(
        subject,
        read_labelled(subject, Path(data)),
        Path(data),
        workers=workers,
        threads=threads,
        processes=processes,
        keep=Path(keep) if keep else None,
        against=other,
        command=command,
        progress=progress,
    )
    return report


def tradeoff(
    reports: "Iterable[AccuracyReport | str | Path]",
    folder: str | Path | None = None,
    *,
    cost: str = "bits",
    profiles: "Iterable[str | Path]" = (),
    title: str = "",
    force: bool = False,
) -> "Tradeoff":
    """Compare models by accuracy, bytes and what the encoder costs; draw the three tradeoffs.

    Args:
        reports: Accuracy reports, their files, or folders of such files.
        folder: Folder to write the figure and ``tradeoff.csv`` into; None writes nothing.
        cost: What the encoder's cost is: its size in ``"bits"`` (Eq. 1), its ``"macs"`` or
            ``"flops"``, or ``"latency"`` on the device of the profiles.
        profiles: Files, or folders of files, of encoder profiles or of what ``python -m splitrun
            bench --json`` printed; for latency.
        title: Note below the figure; by default the data set.
        force: Replace the figure that the folder holds.

    Raises:
        ReportError: A report cannot be read, or they are of different tasks or images; or
            latencies are missing, or of several machines.
        UnknownNameError: There is no such cost.
        OutputError: The folder is taken or cannot be written.
    """
    from .accuracy_report import AccuracyReport, read_accuracy
    from .tradeoffs import collect

    read: list[AccuracyReport] = []
    for given in reports:
        if isinstance(given, AccuracyReport):
            read.append(given)
            continue
        path = Path(given)
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        read.extend(map(read_accuracy, files))
    found = collect(read, cost=cost, profiles=map(Path, profiles))
    if folder is not None:
        from .tradeoff_plot import save_tradeoff

        save_tradeoff(found, Path(folder), title=title, force=force)
    return found


def bits(model: "SplitModel | str | Path", image: "str | Path | NDArray[np.float32]") -> "BitMap":
    """Map where in an image the bits go.

    Args:
        model: Model, name, folder of a model, or repository. A bundle has no density to read.
        image: File, or the model's input (1, 3, H, W) float32.

    Raises:
        SpecError: The payload of the model does not depend on places.
        ImageError: The image cannot be read.
    """
    from ..zoo.resolve import ModelSource
    from ..zoo.split_model import SplitModel
    from .bit_maps import map_bits

    loaded = model if isinstance(model, SplitModel) else ModelSource.of(model).load()
    if isinstance(image, str | Path):
        image = loaded.spec.preprocessing.load(Path(image))
    return map_bits(loaded, image)


def choose(
    *,
    link: str | None = None,
    device: str | None = None,
    max_bytes: float | None = None,
    deadline_ms: float | None = None,
    min_accuracy: float | None = None,
    reports: "Iterable[str | Path]" = (),
) -> "Choice":
    """Rank the models at hand by accuracy, those first that fit a link, a deadline, so many bytes.

    Args:
        link: Name of a link, or a rate such as ``"37.5kbps"``.
        device: Name of a board, or file of latencies that were measured on the device; None for the
            machine that the models were timed on.
        max_bytes: Most bytes per image.
        deadline_ms: Longest time from image to answer.
        min_accuracy: Least share in [0, 1] of the main metric.
        reports: Reports of accuracy and latency to rank too, or folders of them.

    Raises:
        SpecError: There is no such link.
        UnknownNameError: There is no such device.
        ReportError: A report cannot be read, or there is no model to rank.
    """
    from splitrun.sending.links import read_link

    from .choosing import choose as choosing
    from .rows import make_rows, read_reports

    paths = [Path(path) for path in reports]
    return choosing.choose(
        link=read_link(link) if link else None,
        device=device,
        max_bytes=max_bytes,
        deadline_ms=deadline_ms,
        min_accuracy=min_accuracy,
        local=make_rows(*read_reports(paths)) if paths else (),
    )
