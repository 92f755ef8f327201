"""ncnn's pair of files, which pnnx makes of a traced graph."""

import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

from splitrun.errors import BundleError

from .base import Format, Source

_MAGIC = "7767517"


class NcnnFormat(Format):
    """A ``.param`` file with the graph, and beside it a ``.bin`` file with the weights.

    ncnn computes in fp32; in fp16, the weights are stored as fp16.
    """

    engine = "ncnn"
    suffix = ".param"
    packages = ("torch", "pnnx", "ncnn")
    extra = "ncnn"
    any_batch = False
    edge_precisions = ("fp32", "fp16-weights")

    @property
    def requirements(self) -> tuple[str, ...]:
        """ncnn, of any release."""
        return ("ncnn",)

    def write(self, source: Source, path: Path) -> Path:
        """Trace the graph, and let pnnx convert it."""
        import pnnx

        weights = path.with_suffix(".bin")
        with tempfile.TemporaryDirectory() as folder:
            traced = Path(folder) / "graph.pt"
            with warnings.catch_warnings():
                # TorchScript is deprecated, and what pnnx reads.
                warnings.simplefilter("ignore")
                _trace_in_floats(source).save(str(traced))
            shapes = ",".join(f"{list(one.shape)}f32".replace(" ", "") for one in source.examples)
            words = [pnnx.EXEC_PATH, traced.name, f"inputshape={shapes}"]
            words += [f"fp16={int(source.precision.startswith('fp16'))}"]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
            made = [traced.with_suffix(f".ncnn{suffix}") for suffix in (".param", ".bin")]
            if done.returncode or not all(file.is_file() for file in made):
                said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
                raise BundleError(f"pnnx cannot convert {path.stem}: {said}")
            for file, place in zip(made, (path, weights), strict=True):
                place.write_bytes(file.read_bytes())
        self._check_whole(source, path)
        return weights

    def check(self, path: Path) -> None:
        """Check that the file says that it is a graph whose outputs depend on its input."""
        layers = _read_layers(path)
        known = {name for kind, _, outputs in layers if kind == "Input" for name in outputs}
        for _, inputs, outputs in layers:
            if known.intersection(inputs):
                known.update(outputs)
        if not {"in0", "out0"} <= known:
            raise BundleError(f"{path} is not a graph whose output depends on its input.")

    def _check_whole(self, source: Source, path: Path) -> None:
        """Refuse what pnnx left out, or wrote though ncnn has no such layer."""
        layers = _read_layers(path)
        # PyTorch's operators that pnnx knows no layer for keep their names: torch.topk, aten::nms.
        unknown = sorted({kind for kind, _, _ in layers if {".", ":"} & set(kind)})
        if unknown:
            raise BundleError(
                f"ncnn has no layer for {', '.join(unknown)} of {path.stem}.",
                next_step="Choose another target: splitzoo export targets",
            )
        names = {name for _, _, outputs in layers for name in outputs}
        wanted = [f"in{number}" for number in range(len(source.input_names))]
        wanted += [f"out{number}" for number in range(len(source.output_names))]
        if missing := [name for name in wanted if name not in names]:
            raise BundleError(f"pnnx dropped {', '.join(missing)} of {path.stem}.")
        self.check(path)


def _trace_in_floats(source: Source) -> Any:
    """Trace a graph without its casts: ncnn has floats alone, and its callers cast."""
    import torch
    from torch.overrides import TorchFunctionMode

    casts = {torch.Tensor.to, torch.Tensor.int, torch.Tensor.float}

    class WithoutCasts(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return args[0] if func in casts else func(*args, **(kwargs or {}))

    examples = tuple(example.float() for example in source.examples)
    with WithoutCasts():
        return torch.jit.trace(source.module, examples, check_trace=False)


def _read_layers(path: Path) -> list[tuple[str, list[str], list[str]]]:
    """Return the kind, the inputs and the outputs of each layer.

    Raises:
        BundleError: The file is not what pnnx writes.
    """
    try:
        magic, _, *lines = path.read_text(encoding="ascii").splitlines()
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic[:20]!r}")
        layers = []
        for line in lines:
            kind, _, inputs, outputs, *names = line.split()
            end = int(inputs) + int(outputs)
            layers.append((kind, names[: int(inputs)], names[int(inputs) : end]))
        return layers
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not what pnnx writes: {error}.") from error
