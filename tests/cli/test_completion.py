"""What shells complete: names of models, targets, precisions and recipes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {
    "zoo show flowers-spl": [
        *(f"flowers-splittable_regnetx_002-fp-beta{beta}" for beta in (1, 3, 8)),
        "flowers-splittable_regnetx_002-mshp-beta3",
    ],
    "export split --target r": ["raspberrypi"],
    "export split --precision fp": ["fp32", "fp16"],
    "export split resnet50-jpeg": ["resnet50-jpeg-q90"],
    "profile encoder resnet50-vtm": ["resnet50-vtm-q63"],
    "cards show resnet50-bpg": ["resnet50-bpg-q50"],
    "zoo train entropic_student-resnet10": ["entropic_student-resnet101"],
    "zoo list --task sem": ["semantic-segmentation"],
    "zoo sho": ["show"],
}


def answer(**variables: str) -> str:
    code = "import sys; sys.argv = ['splitzoo']; from splitzoo.cli import run; sys.exit(run())"
    environment = os.environ | variables
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes(tmp_path) -> None:
    """The script that is installed, in a bash that has nothing else."""
    program = tmp_path / "splitzoo"
    program.write_text(f"#!{sys.executable}\nfrom splitzoo.__main__ import main\nmain()\n")
    program.chmod(0o755)
    asked = "\n".join(
        f"COMP_WORDS=(splitzoo {words}); COMP_CWORD={len(words.split())}; "
        '_splitzoo_completion splitzoo; echo "${COMPREPLY[@]}"'
        for words in CASES
    )
    script = f'eval "$(splitzoo --show-completion bash)"\n{asked}'
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True
    )
    assert [line.split() for line in done.stdout.splitlines()] == list(CASES.values()), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_are_answered(shell) -> None:
    found = answer(
        _SPLITZOO_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="splitzoo zoo show flowers-spl",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    for name in CASES["zoo show flowers-spl"]:
        assert name in found
    assert "resnet50" not in found


def test_the_pages_say_how_to_get_it() -> None:
    page = Path(__file__).parents[2] / "docs" / "get-started.md"
    assert "splitzoo --install-completion" in page.read_text(encoding="utf-8")
