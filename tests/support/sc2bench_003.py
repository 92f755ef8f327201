"""Runs code inside sc2bench 0.0.3, which lies in a folder of its own beside the current version.

That version and its torchdistill 0.3.3 were written for torch 1 and cannot share a process with
sc2bench 0.1.1: they run in another, without their packages' ``__init__``, and with stand-ins for
what torch and torchvision have dropped since.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

FOLDER = Path(
    os.environ.get("SPLITZOO_SC2BENCH_003", Path(__file__).parents[2] / ".venv" / "sc2bench-0.0.3")
)
"""Made with: pip install --no-deps --target FOLDER sc2bench==0.0.3 torchdistill==0.3.3"""

_PRELUDE = """
import sys
import types
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch
import torchvision
from safetensors.torch import load_file, save_file

root, exchange = map(Path, sys.argv[1:])


class Missing(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


sys.modules["torch._six"] = six = types.ModuleType("torch._six")
six.string_classes = (str, bytes)
torchvision.datasets.Kinetics400 = torchvision.datasets.Kinetics
for name in ("", ".coco", ".mask", ".cocoeval"):
    sys.modules.setdefault("pycocotools" + name, Missing("pycocotools" + name))
for name in (
    "sc2bench",
    "sc2bench.models",
    "sc2bench.transforms",
    "torchdistill",
    "torchdistill.datasets",
    "torchdistill.models",
):
    package = types.ModuleType(name)
    package.__path__ = [str(root.joinpath(*name.split(".")))]
    sys.modules[name] = package

given = load_file(exchange / "given.safetensors")
answer = {}
"""

_POSTLUDE = """
save_file(
    {name: tensor.detach().contiguous().clone() for name, tensor in answer.items()},
    exchange / "answer.safetensors",
)
"""


def run(code: str, exchange: Path, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run Python code in which sc2bench is version 0.0.3.

    Args:
        code: Reads tensors from the dict ``given`` and puts others into the dict ``answer``. It may
            import ``sc2bench.models.…`` and ``sc2bench.transforms.…``, and torch is there.
        exchange: An empty folder.
        given: Tensors by name.
    """
    if not (FOLDER / "sc2bench").is_dir():
        pytest.skip(f"sc2bench 0.0.3 is not in {FOLDER}; SPLITZOO_SC2BENCH_003 may name another")
    packed = {name: tensor.contiguous() for name, tensor in given.items()}
    save_file(packed, exchange / "given.safetensors")
    script = exchange / "script.py"
    script.write_text(_PRELUDE + code + _POSTLUDE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(FOLDER), str(exchange)],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return load_file(exchange / "answer.safetensors")
