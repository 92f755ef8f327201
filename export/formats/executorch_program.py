"""ExecuTorch's programs, for XNNPACK, by way of ``torch.export``."""

import tempfile
from importlib.metadata import version
from pathlib import Path

from splitrun.errors import BundleError

from ..environments import Environment
from .base import Format, Source
from .torch_files import ExportedFormat

_IDENTIFIER = b"ET"
_CONVERTER = Environment("executorch", ("executorch==1.5.1",), beside=True, runs=True)


class ExecuTorchFormat(Format):
    """A ``.pte`` file, whose operators XNNPACK computes where it can."""

    engine = "executorch"
    suffix = ".pte"
    packages = ("torch",)
    any_batch = False
    environment = _CONVERTER

    @property
    def requirements(self) -> tuple[str, ...]:
        """ExecuTorch, this release or a later one, and PyTorch, which its runtime imports."""
        release = version("torch").partition("+")[0]
        return ("executorch>=1.5", f"torch>={'.'.join(release.split('.')[:2])}")

    def write(self, source: Source, path: Path) -> None:
        """Export the graph, and let ExecuTorch compile it."""
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / f"{path.stem}.pt2"
            ExportedFormat().write(source, exported)
            _CONVERTER.run("torch_to_pte", str(exported), str(path))
        self.check(path)

    def check(self, path: Path) -> None:
        """Check that the file says that it is one of ExecuTorch's."""
        with path.open("rb") as file:
            if file.read(6)[4:] != _IDENTIFIER:
                raise BundleError(f"{path} is not a program of ExecuTorch.")
