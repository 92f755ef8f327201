"""The records of the self-tests: what PyTorch made of one input, a file for each half."""

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

Arrays = dict[str, NDArray[Any]]
"""Arrays by name."""
_Layouts = dict[str, tuple[np.dtype, tuple[int, ...]]]
"""Type and shape of arrays, by name."""


@dataclass(frozen=True)
class DeviceRecord:
    """An input with what PyTorch's device half made of it.

    Attributes:
        image: Input (1, 3, H, W) float32.
        wire: Wire tensors by name, each (1, …).
        ties: Masks of the wire tensors that are integers, by name, bool: where a value lay so close
            to a rounding boundary that another order of additions may round it to the neighbour.
        stream: Stream of ``wire``.
    """

    image: NDArray[np.float32]
    wire: Arrays
    ties: Arrays
    stream: bytes

    def save(self, path: Path) -> None:
        """Write the record as a compressed ``.npz`` file."""
        _save(path, {"image": self.image}, self.stream, {"wire": self.wire, "ties": self.ties})

    @classmethod
    def load(cls, bundle: Bundle) -> "DeviceRecord":
        """Read the record of a bundle's device half.

        Raises:
            BundleError: The half is not here; or the file is damaged, too large, or does not fit
                the graph.
        """
        device = bundle.device
        wire = _layouts(device.graph.outputs)
        ties = {name: (np.dtype(bool), shape) for name, (dtype, shape) in wire.items()}
        groups = {
            "wire": wire,
            "ties": {name: tie for name, tie in ties.items() if wire[name][0].kind in "iu"},
        }
        image = _layouts(device.graph.inputs)
        arrays, named = _load(bundle.path(device.selftest), image, groups)
        return cls(arrays["image"], **named, stream=arrays["stream"].tobytes())


@dataclass(frozen=True)
class EdgeRecord:
    """A stream with what PyTorch's edge half, with one of its tails, made of it.

    Attributes:
        stream: Stream from the device.
        inputs: The edge graph's inputs by name, each (1, …).
        outputs: The edge graph's outputs by name, each (1, …).
        hyper_inputs: Inputs of the hyper graph, where there is one.
        boxes_inputs: Inputs of a detector's boxes graph that are not among ``outputs``.
        boxes_outputs: Outputs of that graph.
    """

    stream: bytes
    inputs: Arrays
    outputs: Arrays
    hyper_inputs: Arrays = field(default_factory=dict)
    boxes_inputs: Arrays = field(default_factory=dict)
    boxes_outputs: Arrays = field(default_factory=dict)

    def all_boxes_inputs(self) -> list[NDArray[Any]]:
        """Return all inputs of a detector's boxes graph: the levels of features, then the rest."""
        levels = [value for value in self.outputs.values() if value.ndim == 4]
        return [*levels, *self.boxes_inputs.values()]

    def save(self, path: Path) -> None:
        """Write the record as a compressed ``.npz`` file."""
        groups = ("inputs", "outputs", "hyper_inputs", "boxes_inputs", "boxes_outputs")
        _save(path, {}, self.stream, {group: getattr(self, group) for group in groups})

    @classmethod
    def load(cls, bundle: Bundle, tail: str | None = None) -> "EdgeRecord":
        """Read the record of a tail of a bundle's edge half; see :meth:`DeviceRecord.load`."""
        info, hyper = bundle.tail(tail), bundle.edge.hyper
        outputs = _layouts(info.graph.outputs)
        groups = {"inputs": _layouts(info.graph.inputs), "outputs": outputs}
        if hyper:
            groups["hyper_inputs"] = _layouts(hyper.inputs)
        if boxes := info.boxes:
            # Their rows are boxes, not images.
            extra = tuple(one for one in boxes.inputs if one.name not in outputs)
            groups["boxes_inputs"] = _layouts(extra, batch=False)
            groups["boxes_outputs"] = _layouts(boxes.outputs, batch=False)
        arrays, named = _load(bundle.path(info.selftest), {}, groups)
        return cls(arrays["stream"].tobytes(), **named)


@dataclass(frozen=True)
class Record:
    """One run of both halves, the stream of the first being read by the second."""

    device: DeviceRecord
    edge: EdgeRecord


def _save(path: Path, arrays: Arrays, stream: bytes, groups: Mapping[str, Arrays]) -> None:
    arrays = arrays | {"stream": np.frombuffer(stream, np.uint8)}
    for group, named in groups.items():
        arrays |= {f"{group}.{name}": value for name, value in named.items()}
    write_arrays(path, arrays, save=np.savez_compressed)


def _load(
    path: Path, plain: _Layouts, groups: Mapping[str, _Layouts]
) -> tuple[Arrays, dict[str, Arrays]]:
    """Read a stream and arrays by themselves, and those of groups, all of known layouts."""
    expected = dict(plain)
    for group, layouts in groups.items():
        expected |= {f"{group}.{name}": layout for name, layout in layouts.items()}
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
    return arrays, named


def _layouts(tensors: tuple[TensorInfo, ...], *, batch: bool = True) -> _Layouts:
    """Return type and shape of tensors of one image, by name."""
    return {
        tensor.name: (np.dtype(tensor.dtype), (1, *tensor.shape[1:]) if batch else tensor.shape)
        for tensor in tensors
    }
