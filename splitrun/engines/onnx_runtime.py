"""ONNX files in ONNX Runtime, on the CPU."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .base import Session, not_importable


class OnnxRuntimeSession(Session):
    """An ONNX file, which says how precisely to compute."""

    thread_safe = True

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        # Version 1.32 reports use to its maker by default; a camera board has no say in that.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as states  # pyright: ignore
        except ImportError as error:
            raise not_importable("ONNX Runtime", "onnxruntime", error) from error
        self.version = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads would stay awake after each run, on the cores that coding and others need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # On x86 without VNNI, sums of uint8 × int8 saturate otherwise.
        options.add_session_config_entry("session.x64quantprecision", "1")
        # Its exceptions have no common base of their own.
        self._failures = tuple(
            value
            for value in vars(states).values()
            if isinstance(value, type) and issubclass(value, Exception)
        )
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except self._failures as error:
            raise BundleError(f"ONNX Runtime cannot load {path}: {error}") from error

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph."""
        try:
            return [np.asarray(tensor) for tensor in self._session.run(outputs, dict(inputs))]
        except (*self._failures, ValueError) as error:
            raise BundleError(f"ONNX Runtime failed: {error}") from error
