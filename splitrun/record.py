"""The self-test's record: an input with what PyTorch made of it, step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .coding.arrays import read_arrays, write_arrays
from .errors import BundleError
from .manifest import TensorInfo

_MAX_BYTES = 1 << 29
_GROUPS = ("wire", "ties", "edge_inputs", "outputs", "boxes_inputs", "boxes_outputs")

Arrays = dict[str, NDArray[Any]]
"""Arrays by name."""


@dataclass(frozen=True)
class Record:
    """An input with what PyTorch made of it.

    Attributes:
        image: Input (1, 3, H, W) float32.
        wire: Wire tensors by name, each (1, …).
        ties: Masks of the wire tensors that are integers, by name, bool: where a value lay so close
            to a rounding boundary that another order of additions may round it to the neighbour.
        edge_inputs: The edge graph's inputs by name, each (1, …).
        outputs: The edge graph's outputs by name, each (1, …), from ``edge_inputs``.
        stream: Stream of ``wire``.
        boxes_inputs: Inputs of a detector's boxes graph that are not among ``outputs``.
        boxes_outputs: Outputs of that graph.
    """

    image: NDArray[np.float32]
    wire: Arrays
    ties: Arrays
    edge_inputs: Arrays
    outputs: Arrays
    stream: bytes
    boxes_inputs: Arrays = field(default_factory=dict)
    boxes_outputs: Arrays = field(default_factory=dict)

    def all_boxes_inputs(self) -> list[NDArray[Any]]:
        """Return all inputs of a detector's boxes graph: the levels of features, then the rest."""
        levels = [value for value in self.outputs.values() if value.ndim == 4]
        return [*levels, *self.boxes_inputs.values()]

    def save(self, path: Path) -> None:
        """Write the record as a compressed ``.npz`` file."""
        arrays: Arrays = {"image": self.image, "stream": np.frombuffer(self.stream, np.uint8)}
        for group in _GROUPS:
            named: Mapping[str, NDArray[Any]] = getattr(self, group)
            arrays |= {f"{group}.{name}": value for name, value in named.items()}
        write_arrays(path, arrays, save=np.savez_compressed)

    @classmethod
    def load(cls, bundle: Bundle) -> "Record":
        """Read a bundle's record.

        Raises:
            BundleError: The file is damaged, too large, or does not fit the bundle's graphs.
        """
        wire = _layout(bundle.device.outputs)
        groups = {
            "wire": wire,
            "ties": {
                name: (np.dtype(bool), shape)
                for name, (dtype, shape) in wire.items()
                if dtype.kind in "iu"
            },
            "edge_inputs": _layout(bundle.edge.inputs),
            "outputs": _layout(bundle.edge.outputs),
        }
        if boxes := bundle.graphs.get("boxes"):
            # Their rows are boxes, not images.
            extra = tuple(info for info in boxes.inputs if info.name not in groups["outputs"])
            groups["boxes_inputs"] = _layout(extra, batch=False)
            groups["boxes_outputs"] = _layout(boxes.outputs, batch=False)
        (image,) = _layout(bundle.device.inputs).values()
        expected = {"image": image}
        for group, layouts in groups.items():
            expected |= {f"{group}.{name}": layout for name, layout in layouts.items()}
        path = bundle.path(bundle.manifest.selftest)
        try:
            arrays = read_arrays(path, {*expected, "stream"}, limit_bytes=_MAX_BYTES)
        except ValueError as error:
            raise BundleError(f"Cannot read the self-test record {path}: {error}.") from error
        expected["stream"] = np.dtype(np.uint8), arrays["stream"].shape[:1]
        for name, (dtype, shape) in expected.items():
            value = arrays[name]
            if value.dtype != dtype or value.shape != shape:
                raise BundleError(
                    f"The self-test record holds {name} as {value.dtype} {value.shape}, "
                    f"not {dtype} {shape}."
                )
        named = {
            group: {name: arrays[f"{group}.{name}"] for name in names}
            for group, names in groups.items()
        }
        return cls(image=arrays["image"], stream=arrays["stream"].tobytes(), **named)  # pyright: ignore[reportArgumentType]  # as checked


def _layout(
    tensors: tuple[TensorInfo, ...], *, batch: bool = True
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Return type and shape of tensors of one image, by name."""
    return {
        tensor.name: (np.dtype(tensor.dtype), (1, *tensor.shape[1:]) if batch else tensor.shape)
        for tensor in tensors
    }
