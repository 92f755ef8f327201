"""PyTorch's own formats: TorchScript, exported programs, AOTInductor packages."""

import contextlib
import logging
import warnings
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitrun.errors import BundleError

from .base import Format, Source

if TYPE_CHECKING:
    import torch


class _TorchFormat(Format):
    packages = ("torch",)

    @property
    def requirements(self) -> tuple[str, ...]:
        """This release of PyTorch or a later one: older ones may not read the files."""
        return (f"torch>={_release()}",)


class TorchScriptFormat(_TorchFormat):
    """A traced and frozen ``.ts`` file."""

    engine = "torchscript"
    suffix = ".ts"

    def write(self, source: Source, path: Path) -> None:
        """Trace the graph, fold what is constant, and save it."""
        import torch

        with _torch_errors(path), warnings.catch_warnings():
            # The target's note says that TorchScript is deprecated.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(source.module, tuple(source.examples), check_trace=False)
            torch.jit.freeze(traced).save(str(path))

    def check(self, path: Path) -> None:
        """Check that the file is an archive with code."""
        _check_part(path, "code/")


class ExportedFormat(_TorchFormat):
    """A ``.pt2`` file with the graph as ``torch.export`` makes it."""

    engine = "torch"
    suffix = ".pt2"

    def write(self, source: Source, path: Path) -> None:
        """Export the graph and save it."""
        import torch

        with _torch_errors(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = exported(source)
            # They would be saved too, and nothing needs them.
            program.example_inputs = None
            torch.export.save(program, str(path))

    def check(self, path: Path) -> None:
        """Check that the file is an archive with a graph."""
        _check_part(path, "models/")


class AotInductorFormat(_TorchFormat):
    """A ``.pt2`` package with a library that a C++ compiler made for the exporting kind of CPU."""

    engine = "aotinductor"
    suffix = ".pt2"

    @property
    def requirements(self) -> tuple[str, ...]:
        """This release of PyTorch only: the library is linked with it."""
        return (f"torch=={_release()}.*",)

    def write(self, source: Source, path: Path) -> None:
        """Export the graph, compile it, and package the library."""
        from torch import _inductor

        # It warns that there is no CUDA, which is not compiled for.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        with _torch_errors(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _inductor.aoti_compile_and_package(exported(source), package_path=str(path))

    def check(self, path: Path) -> None:
        """Check that the file is an archive with a library."""
        _check_part(path, "data/aotinductor/")


def _release() -> str:
    """Return the major and minor version of the installed PyTorch."""
    return ".".join(version("torch").split(".")[:2])


def exported(source: Source) -> "torch.export.ExportedProgram":
    """Return a graph as ``torch.export`` makes it."""
    import torch

    examples, shapes = source.examples, None
    if source.dynamic_batch:
        # From an example of one image, the exporter would fix the batch to 1.
        examples = [torch.cat([example[:1], example[:1]]) for example in examples]
        shapes = (tuple({0: torch.export.Dim("batch", min=1, max=1 << 16)} for _ in examples),)
    return torch.export.export(source.module, tuple(examples), dynamic_shapes=shapes)


@contextlib.contextmanager
def _torch_errors(path: Path) -> Iterator[None]:
    """Turn what PyTorch's exporters raise, which is of many kinds, into ``BundleError``."""
    from torch._dynamo import exc as dynamo
    from torch._inductor import exc as inductor

    failures: tuple[Any, ...] = (
        *(RuntimeError, ValueError, TypeError, AssertionError, OSError),
        dynamo.TorchDynamoException,
        inductor.InductorError,
    )
    try:
        yield
    except failures as error:
        raise BundleError(f"PyTorch cannot write {path.name}: {error}") from error


def _check_part(path: Path, part: str) -> None:
    """Refuse a file that is not an archive, or lacks a folder below its root."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is not what PyTorch writes: {error}") from error
    if not any(name.partition("/")[2].startswith(part) for name in names):
        raise BundleError(f"{path} is not what PyTorch writes: {part} is missing.")
