"""What can be evaluated: a model, a bundle, or answers that a bundle gave elsewhere."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from splitrun.bundle import Bundle, open_bundle
from splitrun.errors import BitstreamError, DatasetError
from splitrun.halves import Device, Edge
from splitrun.predictions.detection import DetectionSettings, detect

from ..export.manifest import calibration_of, spec_of
from ..export.verification import check_code
from ..zoo.catalog import build
from ..zoo.datasets import Boxes, Sample
from ..zoo.metrics import TOP, ClassResult, Result, detection_result
from ..zoo.outputs import result_of
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from .accuracy_report import EncoderFacts
from .rate import bundle_rate, model_rate
from .report import ImageRate
from .size import encoder_bits, encoder_parameters, sc2bench_encoder_bits

_MAX_ANSWERS_BYTES = 1 << 28


@dataclass(frozen=True)
class Facts:
    """What is evaluated, for the report."""

    subject: str
    runtime: str
    source: str
    weights: str
    seed: int | None
    model_id: str
    encoder: EncoderFacts
    calibrated: str = ""
    """The coding that calibration kept, if there was one."""
    answers: str = ""
    """SHA-256 of answers that were made elsewhere."""


class Subject(Protocol):
    """What is evaluated."""

    spec: ModelSpec
    facts: Facts

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples that it has an answer for."""
        ...

    def read(self, sample: Sample) -> NDArray[np.float32]:
        """Read an image; several threads call it at once.

        Raises:
            ImageError: It cannot be used.
        """
        ...

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Return an image's bytes, and what is scored of its answer."""
        ...


class ModelSubject:
    """A model in PyTorch: coded and decoded, one image at a time.

    An image's bytes and answer then do not hang on which others are beside it.
    """

    def __init__(self, model: SplitModel) -> None:
        self.model, self.spec = model.eval(), model.spec
        self.facts = Facts(
            subject="model",
            runtime=f"PyTorch {torch.__version__}, eager",
            source=model.source,
            weights="trained" if model.random_seed is None else "random",
            seed=model.random_seed,
            model_id=model.codec.model_id.hex(),
            encoder=encoder_facts(model),
            calibrated=model.calibration.record.kept if model.calibration else "",
        )

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return all samples."""
        return samples

    def read(self, sample: Sample) -> NDArray[np.float32]:
        """Read an image into the model's input (1, 3, H, W)."""
        return self.spec.preprocessing.load(sample.path)

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Send the image through the bitstream; return its bytes and its result."""
        rate, stream = model_rate(self.model, sample.name, image)
        output = self.model.decompress([stream])[0]
        if isinstance(output, dict):
            found: Any = {name: one.numpy() for name, one in output.items()}
        else:
            found = output.numpy()
        return rate, result_of(self.spec, found, sample)


class BundleSubject:
    """A bundle's two halves in their own runtime, one after the other.

    Args:
        folder: Of the bundle.
        threads: For the engines; 0 lets them choose.
        trust: Run graphs of formats that can hold code.

    Raises:
        BundleError: It cannot be read; or its graphs can hold code, and it is not trusted.
    """

    def __init__(self, folder: Path, threads: int = 0, *, trust: bool = False) -> None:
        self._bundle = open_bundle(folder)
        manifest = self._bundle.manifest
        check_code(self._bundle, trust=trust)
        self.spec = spec_of(manifest)
        # Which engine ran is told; answers in the same precision are as good.
        self._device = Device(self._bundle, threads, stand_in=True)
        self._edge = Edge(self._bundle, threads, stand_in=True)
        provenance = manifest.provenance
        self.facts = Facts(
            subject="bundle",
            runtime=_runtime(self._device, manifest.precision),
            source=provenance.source,
            weights=provenance.weights,
            seed=provenance.seed,
            model_id=manifest.coding.model_id,
            # Parameters are the architecture's; its weights do not matter here.
            encoder=encoder_facts(build(self.spec), self._bundle),
            calibrated=calibration.kept if (calibration := calibration_of(manifest)) else "",
        )

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return all samples."""
        return samples

    def read(self, sample: Sample) -> NDArray[np.float32]:
        """Read an image into the device graph's input (1, 3, H, W)."""
        return self._bundle.preprocessing.load(sample.path)

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Send the image through both halves; return its bytes and its result."""
        rate, stream = bundle_rate(self._device, sample.name, image)
        outputs = self._edge.decode(stream)
        if self.spec.task == "object-detection":
            settings = DetectionSettings.from_dict(self._bundle.manifest.postprocessing)
            boxes = detect(outputs, self._edge.boxes, settings)
            found: Any = {"boxes": boxes.boxes, "labels": boxes.labels, "scores": boxes.scores}
        else:
            found = outputs[0][0]
        return rate, result_of(self.spec, found, sample)


def _runtime(device: Device, precision: str) -> str:
    return device.graph.engine + ("" if precision == "fp32" else f", {precision}")


class PredictionsSubject:
    """A folder of answers that a bundle gave elsewhere.

    It holds what ``python -m splitrun decode --json`` printed, in files that end in ``.json``, and
    the streams (``.sz``) that they are of, for their bytes. An image and its stream have the same
    name but for the ending.

    Args:
        folder: Of the answers.
        model: That gave them.
    """

    def __init__(self, folder: Path, model: SplitModel) -> None:
        self.spec = model.spec
        self._codec = model.codec
        self._folder = folder
        self._answers = _read_answers(folder, self.spec)
        model_facts = ModelSubject(model).facts
        self.facts = Facts(
            subject="predictions",
            runtime="as the folder's answers were made",
            source=str(folder),
            weights=model_facts.weights,
            seed=model_facts.seed,
            model_id=model_facts.model_id,
            encoder=model_facts.encoder,
            calibrated=model_facts.calibrated,
            answers=hashlib.sha256(repr(sorted(self._answers.items())).encode()).hexdigest(),
        )

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples that have an answer.

        Raises:
            DatasetError: None has, or two images have the same name but for folder and ending.
        """
        stems: dict[str, str] = {}
        for one in samples:
            other = stems.setdefault(one.path.stem, one.name)
            if other != one.name and one.path.stem in self._answers:
                raise DatasetError(
                    f"{other} and {one.name} would have the same stream, {one.path.stem}.sz.",
                    next_step="Rename one of them, and encode it again.",
                )
        found = [one for one in samples if one.path.stem in self._answers]
        if not found:
            raise DatasetError(
                f"No answer in {self._folder} is of an image of the data set.",
                next_step="Streams have the names of their images: python -m splitrun encode "
                "--output FOLDER IMAGES",
            )
        return found

    def read(self, sample: Sample) -> NDArray[np.float32]:
        """Return nothing: the image was read elsewhere."""
        return np.empty(0, np.float32)

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> tuple[ImageRate, Result]:
        """Return the bytes of the image's stream, and its answer.

        Raises:
            DatasetError: The stream is missing.
            BitstreamError: It is damaged, or of another model.
        """
        path = self._folder / f"{sample.path.stem}.sz"
        try:
            stream = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"{path} is missing: the bytes of {sample.name} are not known.",
                next_step="Put the streams beside the answers.",
            ) from error
        try:
            payload = self._codec.unframe(stream)[0]
        except BitstreamError as error:
            raise BitstreamError(f"{path}: {error.message}", next_step=error.next_step) from error
        rate = ImageRate(image=sample.name, payload_bytes=len(payload), stream_bytes=len(stream))
        answer = self._answers[sample.path.stem]
        if not isinstance(sample.target, Boxes):
            best = tuple(one.index for one in answer.top[:TOP])
            return rate, ClassResult(answer=best, label=sample.target)  # pyright: ignore[reportArgumentType]
        found = {
            "boxes": np.array([one.box for one in answer.detections], np.float32).reshape(-1, 4),
            "labels": np.array([one.index for one in answer.detections], np.int64),
            "scores": np.array([one.score for one in answer.detections], np.float32),
        }
        return rate, detection_result(found, sample.target)


class _Answer(BaseModel):
    """One class that a model names, or one object that it found."""

    index: Annotated[int, Field(ge=0, lt=1 << 31)]
    score: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    box: Annotated[tuple[float, float, float, float], Field()] = (0.0, 0.0, 0.0, 0.0)


class _Output(BaseModel):
    """What was printed of one stream."""

    stream: str
    top: list[_Answer] = []
    detections: list[_Answer] = []


class _Document(BaseModel):
    """What ``python -m splitrun decode --json`` prints."""

    outputs: list[_Output]


def _read_answers(folder: Path, spec: ModelSpec) -> dict[str, _Output]:
    if spec.task == "semantic-segmentation":
        raise DatasetError(
            "Printed answers of segmentation are shares of classes, which cannot be scored.",
            next_step="Evaluate the bundle itself.",
        )
    least = min(TOP, spec.num_classes) if spec.task == "image-classification" else 0
    found: dict[str, _Output] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            if path.stat().st_size > _MAX_ANSWERS_BYTES:
                raise ValueError(f"it has over {_MAX_ANSWERS_BYTES >> 20} MiB")
            document = _Document.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise DatasetError(
                f"{path} holds no answers: {said}.",
                next_step="Make it with: python -m splitrun decode --json STREAMS > answers.json",
            ) from error
        for one in document.outputs:
            stem = Path(one.stream).stem
            if stem in found:
                raise DatasetError(f"{folder} holds two answers for {stem}.sz.")
            if len(one.top) < least:
                raise DatasetError(
                    f"{path} names {len(one.top)} classes for {stem}.sz; {least} are needed.",
                    next_step=f"Decode it with --top {TOP}.",
                )
            found[stem] = one
    if not found:
        raise DatasetError(
            f"{folder} holds no answers (.json).",
            next_step="Make some with: python -m splitrun decode --json STREAMS > answers.json",
        )
    return found


def encoder_facts(model: SplitModel, bundle: Bundle | None = None) -> EncoderFacts:
    """Return what the device holds."""
    coder = bundle.codec().coder if bundle is not None else None
    return EncoderFacts(
        parameters=encoder_parameters(model),
        encoder_bits=encoder_bits(model),
        sc2bench_encoder_bits=sc2bench_encoder_bits(model, coder),
    )
