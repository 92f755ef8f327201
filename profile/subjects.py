"""What can be evaluated: a model, a bundle, or predictions that a bundle made elsewhere."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from splitrun.bundle import Bundle, open_bundle
from splitrun.errors import BitstreamError, DatasetError
from splitrun.halves import Device, Edge, check_code
from splitrun.predictions.detection import DetectionSettings, detect
from splitrun.preprocessing import Preprocessing
from splitrun.strict_json import read_strictly

from ..export.manifest import calibration_of, spec_of
from ..zoo.catalog import build
from ..zoo.datasets import Boxes, Dataset, Sample, labels_of, read_dataset
from ..zoo.metrics import TOP, ClassResult, Result, detection_result
from ..zoo.outputs import result_of
from ..zoo.resolve import ModelSource
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from .accuracy_report import EncoderFacts
from .rate import bundle_rate, model_rate, stream_rate
from .report import ImageRate
from .size import encoder_bits, encoder_parameters, sc2bench_encoder_bits

_MAX_PREDICTIONS_BYTES = 1 << 28


@dataclass(frozen=True)
class Facts:
    """What an accuracy report says of its subject; fields as in the report."""

    subject: str
    runtime: str
    source: str
    weights: str
    seed: int | None
    model_id: str
    encoder: EncoderFacts
    calibrated: str


class Subject(ABC):
    """What is evaluated.

    Attributes:
        spec: Spec of the model.
        preprocessing: Steps from an image file to the model's input.
        facts: Facts for the report.
        predictions: SHA-256 of predictions that were made elsewhere; empty where none were.
        reopen: Opens the same subject, in another process; None where it is in memory alone.
    """

    spec: ModelSpec
    preprocessing: Preprocessing
    facts: Facts
    predictions: str = ""
    reopen: "Callable[[], Subject] | None" = None

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples that the subject has a prediction for: by default, all."""
        return samples

    def read(self, sample: Sample) -> NDArray[np.float32]:
        """Read an image into the model's input (1, 3, H, W); several threads call it at once.

        Raises:
            ImageError: The image cannot be used.
        """
        return self.preprocessing.load(sample.path)

    @abstractmethod
    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Send an image through the bitstream; return its bytes, and the result to score."""


class ModelSubject(Subject):
    """A model in PyTorch, one image at a time, so that no image depends on another."""

    def __init__(self, model: SplitModel) -> None:
        self.model, self.spec = model.eval(), model.spec
        self.preprocessing = model.spec.preprocessing
        self.facts = Facts(
            subject="model",
            runtime=f"PyTorch {torch.__version__}, eager",
            source=model.source,
            weights="trained" if model.random_seed is None else "random",
            seed=model.random_seed,
            model_id=model.digest().hex()[:8],
            encoder=encoder_facts(model),
            calibrated=model.calibration.record.kept if model.calibration else "",
        )

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Send an image through the bitstream; return its bytes, and the result to score."""
        rate, stream = model_rate(self.model, sample.name, image)
        output = self.model.decompress([stream])[0]
        if isinstance(output, dict):
            found: Any = {name: tensor.numpy() for name, tensor in output.items()}
        else:
            found = output.numpy()
        return rate, result_of(self.spec, found, sample)


class BundleSubject(Subject):
    """A bundle's two halves in their own engines, one after the other.

    Args:
        folder: Folder of the bundle.
        threads: Number of threads for the engines; 0 lets them choose.
        beta: β to encode at, where the model's rate varies.
        trust: Whether to run graphs whose format can hold code.

    Raises:
        BundleError: The bundle cannot be read, or its graphs can hold code and it is not trusted.
    """

    def __init__(
        self, folder: Path, threads: int = 0, *, beta: float | None = None, trust: bool = False
    ) -> None:
        self._bundle = open_bundle(folder, trust=trust)
        manifest = self._bundle.manifest
        if not trust:
            check_code(self._bundle)
        self._bundle.codec().at(beta)  # raises where there is no such β
        self.spec, self.preprocessing = spec_of(manifest).at(beta), self._bundle.preprocessing
        self._beta = beta
        # The report names the engine that ran; predictions in the same precision are as good.
        self._device = Device(self._bundle, threads, stand_in=True)
        self._edge = Edge(self._bundle, threads, stand_in=True)
        precision = "" if manifest.precisions == "fp32" else f", {manifest.precisions}"
        calibration = calibration_of(manifest)
        self.facts = Facts(
            subject="bundle",
            runtime=self._device.graph.engine + precision,
            source=manifest.provenance.source,
            weights=manifest.provenance.weights,
            seed=manifest.provenance.seed,
            model_id=manifest.provenance.model_id,
            # Parameters are the architecture's; its weights do not matter here.
            encoder=encoder_facts(build(self.spec), self._bundle),
            calibrated=calibration.kept if calibration else "",
        )

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Send an image through both halves; return its bytes, and the result to score."""
        rate, stream = bundle_rate(self._device, sample.name, image, self._beta)
        outputs = self._edge.decode(stream)
        if self.spec.task == "object-detection":
            settings = read_strictly(DetectionSettings, self._bundle.tail().postprocessing)
            boxes = detect(outputs, self._edge.boxes, settings)
            found: Any = {"boxes": boxes.boxes, "labels": boxes.labels, "scores": boxes.scores}
        else:
            found = outputs[0][0]
        return rate, result_of(self.spec, found, sample)


class PredictionsSubject(Subject):
    """A folder of predictions that a bundle gave elsewhere.

    It holds what ``python -m splitrun decode --json`` printed, in files that end in ``.json``, and
    the streams (``.sz``) that were decoded, for their bytes. An image and its stream have the same
    name but for the ending.

    Args:
        folder: Folder of predictions and streams.
        model: Model that gave them.

    Raises:
        DatasetError: The folder holds no predictions that can be scored.
    """

    def __init__(self, folder: Path, model: SplitModel) -> None:
        self.spec, self.preprocessing = model.spec, model.spec.preprocessing
        self._codec = model.codec
        self._folder = folder
        self._predictions = _read_predictions(folder, self.spec)
        self.predictions = hashlib.sha256(
            repr(sorted(self._predictions.items())).encode()
        ).hexdigest()
        self.facts = replace(
            ModelSubject(model).facts,
            subject="predictions",
            runtime="as the folder's predictions were made",
            source=str(folder),
        )

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples that have a prediction.

        Raises:
            DatasetError: None has, or two images have the same name but for folder and ending.
        """
        stems: dict[str, str] = {}
        for sample in samples:
            other = stems.setdefault(sample.path.stem, sample.name)
            if other != sample.name and sample.path.stem in self._predictions:
                raise DatasetError(
                    f"{other} and {sample.name} would have the same stream, {sample.path.stem}.sz.",
                    next_step="Rename one of them, and encode it again.",
                )
        found = [sample for sample in samples if sample.path.stem in self._predictions]
        if not found:
            raise DatasetError(
                f"No prediction in {self._folder} belongs to an image of the data set.",
                next_step="Streams have the names of their images: python -m splitrun encode "
                "--output FOLDER IMAGES",
            )
        return found

    def read(self, sample: Sample) -> NDArray[np.float32]:
        """Return nothing: the image was read elsewhere."""
        return np.empty(0, np.float32)

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Return the bytes of the image's stream, and its prediction.

        Raises:
            DatasetError: The stream is missing.
            BitstreamError: The stream is damaged, or of another model.
        """
        path = self._folder / f"{sample.path.stem}.sz"
        try:
            rate = stream_rate(self._codec, sample.name, path.read_bytes())
        except OSError as error:
            raise DatasetError(
                f"{path} is missing: the bytes of {sample.name} are not known.",
                next_step="Put the streams beside the predictions.",
            ) from error
        except BitstreamError as error:
            raise BitstreamError(f"{path}: {error.message}", next_step=error.next_step) from error
        prediction = self._predictions[sample.path.stem]
        if not isinstance(sample.target, Boxes):
            best = tuple(named.index for named in prediction.top[:TOP])
            return rate, ClassResult(prediction=best, label=sample.target)  # pyright: ignore[reportArgumentType]
        boxes = prediction.detections
        found = {
            "boxes": np.array([box.box for box in boxes], np.float32).reshape(-1, 4),
            "labels": np.array([box.index for box in boxes], np.int64),
            "scores": np.array([box.score for box in boxes], np.float32),
        }
        return rate, detection_result(found, sample.target)


class _Prediction(BaseModel):
    """One class that a model names, or one object that it found."""

    index: Annotated[int, Field(ge=0, lt=1 << 31)]
    score: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class _Output(BaseModel):
    """What was printed for one stream."""

    stream: str
    top: list[_Prediction] = []
    detections: list[_Prediction] = []


class _Document(BaseModel):
    """What ``python -m splitrun decode --json`` prints."""

    outputs: list[_Output]


def _read_predictions(folder: Path, spec: ModelSpec) -> dict[str, _Output]:
    if spec.task == "semantic-segmentation":
        raise DatasetError(
            "Printed predictions of segmentation are shares of classes, which cannot be scored.",
            next_step="Evaluate the bundle itself.",
        )
    decode = "python -m splitrun decode --json STREAMS > predictions.json"
    least = min(TOP, spec.num_classes) if spec.task == "image-classification" else 0
    found: dict[str, _Output] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            if path.stat().st_size > _MAX_PREDICTIONS_BYTES:
                raise ValueError(f"it has over {_MAX_PREDICTIONS_BYTES >> 20} MiB")
            document = _Document.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise DatasetError(
                f"{path} holds no predictions: {reason}.", next_step=f"Make it with: {decode}"
            ) from error
        for output in document.outputs:
            stem = Path(output.stream).stem
            if stem in found:
                raise DatasetError(f"{folder} holds two predictions for {stem}.sz.")
            if len(output.top) < least:
                raise DatasetError(
                    f"{path} names {len(output.top)} classes for {stem}.sz; {least} are needed.",
                    next_step=f"Decode it with --top {TOP}.",
                )
            found[stem] = output
    if not found:
        raise DatasetError(
            f"{folder} holds no predictions (.json).", next_step=f"Make some with: {decode}"
        )
    return found


def open_subject(
    source: ModelSource,
    *,
    seed: int | None = None,
    predictions: Path | None = None,
    beta: float | None = None,
    threads: int = 0,
    trust: bool = False,
) -> Subject:
    """Open what is to be evaluated.

    Args:
        source: Model or bundle.
        seed: Seed for random weights; None loads trained ones.
        predictions: Folder of predictions that a bundle of the model gave elsewhere.
        beta: β to encode at, where the model's rate varies.
        threads: Number of threads for a bundle's engines.
        trust: Whether to run a bundle's graphs though their format can hold code.
    """
    subject = _open(source, seed, predictions, beta, threads, trust)
    subject.reopen = functools.partial(_open, source, seed, predictions, beta, threads, trust)
    return subject


def _open(
    source: ModelSource,
    seed: int | None,
    predictions: Path | None,
    beta: float | None,
    threads: int,
    trust: bool,
) -> Subject:
    if source.bundle:
        return BundleSubject(source.bundle, threads, beta=beta, trust=trust)
    model = source.load(seed=seed).at(beta)
    return ModelSubject(model) if predictions is None else PredictionsSubject(predictions, model)


def read_labelled(subject: Subject, data: Path) -> Dataset:
    """Read the validation images of a data set in the subject's classes.

    Raises:
        DatasetError: The data set cannot be read.
    """
    return read_dataset(subject.spec.task, data, "val", labels_of(subject.spec))


def encoder_facts(model: SplitModel, bundle: Bundle | None = None) -> EncoderFacts:
    """Return what the device holds."""
    coder = bundle.codec().coder if bundle is not None else None
    return EncoderFacts(
        parameters=encoder_parameters(model),
        encoder_bits=encoder_bits(model),
        sc2bench_encoder_bits=sc2bench_encoder_bits(model, coder),
    )
