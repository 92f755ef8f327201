"""ncnn's pair of files, on the CPU."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .base import Session, not_importable


class NcnnSession(Session):
    """A pair of files, ``.param`` (the path) and ``.bin``, for one image at a time.

    Inputs and outputs are the blobs ``in0``, ``in1``, … and ``out0``, ``out1``, …, as pnnx names
    them.
    """

    floats_only = True

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        try:
            import ncnn
        except ImportError as error:
            raise not_importable("ncnn", "ncnn", error) from error
        self.version = f"ncnn {version('ncnn')}"
        self._ncnn: Any = ncnn
        self._net: Any = self._ncnn.Net()
        options = self._net.opt
        if threads:
            options.num_threads = threads
        # By itself it rounds what passes between layers where the processor has the types, and
        # takes Winograd's convolutions, which round more: symbols would differ.
        for shortcut in (
            *("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"),
            "winograd_convolution",
        ):
            setattr(options, f"use_{shortcut}", False)
        weights = path.with_suffix(".bin")
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise BundleError(
                f"ncnn cannot load {path}: its files are damaged, or of other layers."
            )

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph, as floats."""
        extractor = self._net.create_extractor()
        found = []
        for number, (name, array) in enumerate(inputs.items()):
            # A blob has no batch. A Mat reads the array, whose memory the clone alone outlives.
            floats = np.ascontiguousarray(array[0], np.float32)
            blob = self._ncnn.Mat(floats).clone()
            if extractor.input(f"in{number}", blob):
                raise BundleError(f"ncnn failed: it took no {name}.")
        for number, name in enumerate(outputs):
            code, blob = extractor.extract(f"out{number}")
            if code:
                raise BundleError(f"ncnn failed: it gave no {name} (code {code}).")
            found.append(np.array(blob, np.float32)[None])
        return found
