"""What a request is answered."""

import base64
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundle import Bundle
from ..errors import (
    BitstreamError,
    ForeignStreamError,
    RequestError,
    SplitzooError,
    UnknownNameError,
)
from ..halves import OutputReader
from ..predictions.segmentation import class_map
from .questions import Question

JSON = "application/json"
PNG = "image/png"


@dataclass(frozen=True)
class Answer:
    """What is sent back for a stream.

    Attributes:
        status: Status of HTTP.
        body: Body, a JSON object but for a mask as an image.
        media_type: Type of the body.
        outputs: Outputs of the edge graph, each (1, …), where they are wanted.
        replayed: Whether the answer was given before.
    """

    status: int
    body: bytes
    media_type: str = JSON
    outputs: Sequence[NDArray[Any]] = ()
    replayed: bool = False

    def as_item(self) -> bytes:
        """Return the answer as one of several."""
        head = {"status": self.status} | ({"replayed": True} if self.replayed else {})
        return to_json(head)[:-1] + b", " + self.body[1:]


def to_json(document: Any) -> bytes:
    """Return JSON, in ASCII: no text of others steers a terminal."""
    return json.dumps(document).encode()


def status_of(error: SplitzooError) -> int:
    """Return the status of HTTP that tells of an error."""
    if isinstance(error, RequestError):
        return error.status
    kinds = ((ForeignStreamError, 409), (BitstreamError, 400), (UnknownNameError, 404))
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


def error_answer(error: SplitzooError) -> Answer:
    """Return an error as ``--json`` prints it."""
    return Answer(status_of(error), to_json(error.document()))


def answer(
    name: str,
    bundle: Bundle,
    reader: OutputReader,
    tail: str,
    outputs: Sequence[NDArray[Any]],
    question: Question,
    timing_ms: dict[str, float],
) -> Answer:
    """Say what the edge graph's outputs for one image mean.

    Raises:
        RequestError: A mask is wanted of a model that makes none.
        BundleError: The bundle's labels or settings do not fit its outputs.
    """
    mask = _class_map(bundle, tail, outputs, question) if question.mask else None
    if mask is not None and question.as_image:
        return Answer(200, _png(mask), PNG)
    prediction = reader.prediction(outputs, question.top, question.image_size)
    manifest = bundle.manifest
    document: dict[str, Any] = {
        "model": name,
        "stream_id": manifest.coding.stream_id,
        "tail": tail,
        **dataclasses.asdict(prediction),
        "weights": (manifest.edge.tails[tail].provenance or manifest.provenance).weights,
        "timing_ms": {step: round(spent, 3) for step, spent in timing_ms.items()},
    }
    if mask is not None:
        document["mask"] = _mask_document(mask, question.mask)
    return Answer(200, to_json(document), outputs=outputs if question.outputs else ())


def _class_map(
    bundle: Bundle, tail: str, outputs: Sequence[NDArray[Any]], question: Question
) -> NDArray[np.uint8 | np.uint16]:
    task = bundle.manifest.task_of(bundle.manifest.edge.tails[tail])
    if task != "semantic-segmentation":
        raise RequestError(f"A mask is of semantic-segmentation; this tail is of {task}.")
    area = None
    if question.image_size and bundle.preprocessing.fit == "pad":
        width, height = bundle.preprocessing.scaled_size(*question.image_size)
        area = height, width
    return class_map(outputs[0], area)


def _mask_document(mask: NDArray[np.uint8 | np.uint16], form: str) -> dict[str, Any]:
    head = {"format": form, "size": list(mask.shape)}
    if form == "png":
        return head | {"data": base64.b64encode(_png(mask)).decode()}
    flat = mask.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + np.uint8(1)))
    lengths = np.diff(starts, append=flat.size)
    return head | {"runs": np.stack([flat[starts], lengths], 1).tolist()}


def _png(mask: NDArray[np.uint8 | np.uint16]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return content.getvalue()
