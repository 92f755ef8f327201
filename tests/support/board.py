"""Run a bundle as on a board: without torch, and without this package."""

import os
import subprocess
import sys

# What a board has not: to import one of these fails, however the environment is set up.
ABSENT = (
    *("torch", "torchvision", "timm", "compressai", "onnx", "onnxscript", "pydantic", "typer"),
    *("rich", "jinja2", "huggingface_hub", "safetensors", "fvcore", "matplotlib", "splitzoo"),
)
BLOCKED = f"""
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError("absent on the board: " + name, name=name)

sys.meta_path.insert(0, Absent())
"""
RUN = 'runpy.run_module("splitrun", run_name="__main__", alter_sys=True)'


def on_board(bundle, *arguments: object) -> subprocess.CompletedProcess:
    """Run ``python -m splitrun`` in a bundle's folder; warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED + RUN, *map(str, arguments)],
        cwd=bundle,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
