"""An input with what PyTorch made of it, step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, TensorInfo
from .coding.arrays import read_arrays, write_arrays
from .errors import BundleError

_MAX_BYTES = 1 << 29

Named = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Record:
    """An input with what PyTorch made of it.

    Attributes:
        image: (1, 3, H, W) float32.
        sent: The device graph's outputs by name, each (1, …).
        ties: Of the integer tensors sent, by name, bool: where a value lay so close to a rounding
            boundary that another order of additions may round it to the neighbour.
        received: The edge graph's inputs by name, each (1, …).
        outputs: The edge graph's outputs by name, each (1, …), from ``received``.
        stream: Of ``sent``.
        boxes_inputs: Of a detector's boxes graph, those that are not among ``outputs``.
        boxes_outputs: Of that graph.
    """

    image: NDArray[np.float32]
    sent: Named
    ties: Named
    received: Named
    outputs: Named
    stream: bytes
    boxes_inputs: Named = field(default_factory=dict)
    boxes_outputs: Named = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the record as a compressed ``.npz`` file."""
        arrays: Named = {"image": self.image, "stream": np.frombuffer(self.stream, np.uint8)}
        for group in ("sent", "ties", "received", "outputs", "boxes_inputs", "boxes_outputs"):
            named: Mapping[str, NDArray[Any]] = getattr(self, group)
            arrays |= {f"{group}.{name}": value for name, value in named.items()}
        write_arrays(path, arrays, save=np.savez_compressed)

    @classmethod
    def load(cls, bundle: Bundle) -> "Record":
        """Read a bundle's record.

        Raises:
            BundleError: The file is damaged, too large, or does not fit the bundle's graphs.
        """
        path = bundle.part_paths["selftest"]
        groups = {
            "sent": _of(bundle.device.outputs),
            "ties": {
                name: (np.dtype(bool), shape)
                for name, (dtype, shape) in _of(bundle.device.outputs).items()
                if dtype.kind in "iu"
            },
            "received": _of(bundle.edge.inputs),
            "outputs": _of(bundle.edge.outputs),
        }
        if "boxes" in bundle.graphs:
            boxes = bundle.graphs["boxes"]
            given = {one.name for one in bundle.edge.outputs}
            inputs = tuple(one for one in boxes.inputs if one.name not in given)
            groups |= {
                "boxes_inputs": _of(inputs, batch=False),
                "boxes_outputs": _of(boxes.outputs, batch=False),
            }
        expected = {
            f"{group}.{name}": value
            for group, named in groups.items()
            for name, value in named.items()
        }
        (image,) = _of(bundle.device.inputs).values()
        expected["image"] = image
        try:
            arrays = read_arrays(path, {*expected, "stream"}, limit_bytes=_MAX_BYTES)
        except ValueError as error:
            raise BundleError(f"Cannot read the self-test record {path}: {error}.") from error
        stream = arrays.pop("stream")
        for name, (dtype, shape) in {
            **expected,
            "stream": (np.dtype(np.uint8), stream.shape[:1]),
        }.items():
            value = stream if name == "stream" else arrays[name]
            if value.dtype != dtype or value.shape != shape:
                raise BundleError(
                    f"The self-test record holds {name} as {value.dtype} {value.shape}, "
                    f"not {dtype} {shape}."
                )
        named = {
            group: {name: arrays[f"{group}.{name}"] for name in names}
            for group, names in groups.items()
        }
        return cls(image=arrays["image"], stream=stream.tobytes(), **named)  # pyright: ignore[reportArgumentType]  # as checked


def _of(
    tensors: tuple[TensorInfo, ...], *, batch: bool = True
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    return {
        one.name: (np.dtype(one.dtype), (1, *one.shape[1:]) if batch else one.shape)
        for one in tensors
    }
