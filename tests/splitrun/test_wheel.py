"""The wheel of splitrun alone: built, installed, and run on a bundle without all the rest."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from board import BLOCKED, RUN

SOURCE = Path(__file__).parents[2] / "splitrun"


def pip(*words: object, cwd: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel_of_splitrun_runs_a_bundle(tiny_bundle, photo, tmp_path) -> None:
    # A copy: the build writes beside its source.
    source = shutil.copytree(
        SOURCE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("splitrun-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    sources = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.[ch]")}
    assert len(sources) == 3
    assert modules | sources | {"py.typed"} == {
        name.removeprefix("splitrun/") for name in names if name.startswith("splitrun/")
    }
    installed = tmp_path / "installed"
    pip("install", "--no-deps", "--no-index", "--target", installed, wheel, cwd=tmp_path)
    assert (installed / "bin" / "splitrun").is_file()

    def run(*words: object) -> str:
        code = f"{BLOCKED}sys.path.insert(0, {str(installed)!r})\n{RUN}"
        command = [sys.executable, "-P", "-W", "error", "-c", code, "--bundle", tiny_bundle, *words]
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("selftest").endswith("self-test passed\n")
    run("encode", photo, "-o", "photo.sz")
    (prediction,) = json.loads(run("decode", "photo.sz", "--json"))["outputs"]
    assert len(prediction["top"]) == 5
