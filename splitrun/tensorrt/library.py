"""Import TensorRT or refuse it, start it, and keep its messages."""

import importlib
from collections.abc import Callable
from typing import Any

from ..errors import BundleError, DependencyError

_COMES_WITH = (
    "It comes with JetPack (6.1 and 6.2: TensorRT 10.3; 7.1: 10.13; 7.2: 10.16), not from pip: run "
    "this on the Jetson, with its own Python, or an environment made with --system-site-packages."
)

_loggers: dict[Any, Any] = {}


def import_tensorrt() -> Any:
    """Import TensorRT, or raise ``DependencyError``, which says where one comes from."""
    try:
        trt = importlib.import_module("tensorrt")
    # A library below it that is missing or of another CUDA is no ImportError.
    except (ImportError, OSError, RuntimeError) as error:
        missing = getattr(error, "name", None) == "tensorrt"
        raise DependencyError(
            "TensorRT is not installed." if missing else f"TensorRT cannot be imported: {error}",
            next_step=_COMES_WITH,
        ) from error
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise DependencyError(
            f"TensorRT {trt.__version__} does not build typed graphs; 10.3 or later does.",
            next_step=_COMES_WITH,
        )
    return trt


def start(create: Callable[[Any], Any], logger: Any) -> Any:
    """Create a builder or a runtime; without a driver, TensorRT's bindings raise TypeError."""
    try:
        return create(logger)
    except TypeError as error:
        raise BundleError(
            f"TensorRT does not start: {last_words(logger)}",
            next_step="Run this on the Jetson; a container needs --runtime nvidia.",
        ) from error


def last_words(logger: Any) -> str:
    """Return the last messages of a logger, as a sentence."""
    return " ".join(logger.messages[-3:]) or "it does not say why."


def logger_of(trt: Any) -> Any:
    """Return the process's one logger of a module; it keeps warnings and errors.

    With it the module's plugins are registered: a detector's RoiAlign is one.
    """
    if trt not in _loggers:

        class Logger(trt.ILogger):
            def __init__(self) -> None:
                super().__init__()
                self.messages: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                kinds = trt.ILogger.Severity
                if severity in (kinds.INTERNAL_ERROR, kinds.ERROR, kinds.WARNING):
                    self.messages.append(message.strip())

        _loggers[trt] = Logger()
        # TensorRT-RTX has no plugins.
        if hasattr(trt, "init_libnvinfer_plugins"):
            trt.init_libnvinfer_plugins(_loggers[trt], "")
    return _loggers[trt]
