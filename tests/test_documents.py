"""Code blocks of the README and the guides run as a reader would run them."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer.main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IMAGE = ROOT / "zoo" / "images" / "dandelion.jpg"
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>.+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
RUN = ("python", "sh")
# Runs the blocks of a page in order: those of Python in one process, as in one session.
DRIVER = """
import json, subprocess, sys

names = {"__name__": "__main__"}
for kind, code in json.load(sys.stdin):
    print(code, flush=True)
    if kind == "python":
        exec(compile(code, "block", "exec"), names)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
"""


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    kind: str
    code: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["kind"], match["code"], match["reason"]) for match in found]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PAGES_WITH_CODE = [
    pytest.param(
        page,
        id=name_of(page),
        marks=[] if name_of(page) in ("README.md", "docs/get-started.md") else pytest.mark.slow,
    )
    for page in PAGES
    if any(block.kind in RUN and block.reason is None for block in blocks(page))
]


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.kind in (*RUN, "c", "text", "yaml", "json"), f"{page}: {block.code}"


@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(IMAGE, tmp_path / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    code = [
        # What pip would install is installed, and the tests leave the environment as it is.
        (block.kind, re.sub(r"^pip install .*$", "", block.code, flags=re.MULTILINE))
        for block in blocks(page)
        if block.kind in RUN and block.reason is None
    ]
    running = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=environment,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(json.dumps(code))
        assert running.returncode == 0, said
    finally:
        # A server that a page starts goes with the page, whatever became of it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def test_programs_of_the_deploy_guide_are_short() -> None:
    page = ROOT / "docs" / "guides" / "deploy.md"
    programs = [block.code for block in blocks(page) if block.kind == "python"]
    assert len(programs) == 2
    for program in programs:
        assert len(program.splitlines()) <= 20


def commands(code: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in code.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["splitzoo"]]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=" ".join(words))
        for page in PAGES
        for block in blocks(page)
        if block.reason is not None
        for words in commands(block.code)
    ],
)
def test_commands_that_are_not_run_exist(words: list[str]) -> None:
    from splitzoo.cli import app

    command = typer.main.get_command(app)
    context = click.Context(command, info_name="splitzoo")
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    command.make_parser(context).parse_args(args=list(words))
