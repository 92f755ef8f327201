"""The program as a process: help, standard streams, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import SPLITZOO, finish, refused, start, wait_for
from names_of_models import RESNET

from splitzoo import __version__, cli, zoo
from splitzoo.demo import IMAGES

GROUPS = {
    "zoo": ("list", "show", "pull", "push", "convert", "calibrate", "recipe", "train", "sweep"),
    "export": ("split", "targets", "verify", "run", "prepare", "triton"),
    "profile": ("encoder", "accuracy", "tradeoff", "bits", "link", "choose"),
    "cards": ("build", "show", "verify", "gallery", "add-measurement"),
    "demo": (),
    "demo-link": (),
}
LISTINGS = [(), ("--json",), ("--backbone", "vit", "--beta", "0.16"), ("resnet50-*-q90",)]
COMMANDS = [(), *((g,) for g in GROUPS), *((g, c) for g, names in GROUPS.items() for c in names)]
HEAVY = ("torch", "onnx", "onnxruntime", "timm", "matplotlib", "compressai", "huggingface_hub")


def run_all(lines, heavy) -> tuple[str, str]:
    """Run commands in one process: what any of them loaded shows in the last line."""
    program = f"""
import sys
from splitzoo.cli import run
for words in {lines!r}:
    sys.argv = ["splitzoo", *words]
    assert run() == 0, words
print("LOADED", sorted(set({heavy!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
    return done.stdout, done.stderr


IMAGE = IMAGES / "dandelion.jpg"


def test_help_of_every_command_loads_nothing_heavy() -> None:
    helps = [(*words, "--help") for words in COMMANDS]
    out, err = run_all(helps, (*HEAVY, "numpy", "PIL"))
    assert out.count("Usage: ") == len(COMMANDS)
    assert err == ""


def test_the_first_help_is_read_without_pydantic() -> None:
    run_all([("--help",)], (*HEAVY, "numpy", "PIL", "pydantic"))


def test_listing_models_loads_nothing_heavy() -> None:
    run_all([("zoo", "list", *words) for words in LISTINGS], HEAVY)


@pytest.mark.skipif(os.name == "nt", reason="needs the times of child processes")
def test_listing_all_models_takes_no_time_to_speak_of() -> None:
    assert finish("--version") == (0, f"splitzoo {__version__}\n", "")
    before = os.times()
    code, out, _ = finish("zoo", "list", "--json")
    after = os.times()
    assert code == 0
    assert len(json.loads(out)) == len(zoo.list_models())
    # Of the processor, which other processes do not lengthen: about 0.5 s; torch alone takes 2 s.
    spent = [after.children_user, after.children_system]
    assert sum(spent) - before.children_user - before.children_system < 2


def test_the_commands_tested_are_the_commands_there_are() -> None:
    import typer

    root = typer.main.get_command(cli.app)
    groups = root.commands.items()
    found = {name: {*getattr(group, "commands", ())} for name, group in groups}
    assert found == {name: {*commands} for name, commands in GROUPS.items()}


def test_every_command_that_writes_replaces_by_force_alone() -> None:
    import typer

    commands = {
        name: {option for parameter in command.params for option in parameter.opts}
        for group in typer.main.get_command(cli.app).commands.values()
        for name, command in getattr(group, "commands", {group.name: group}).items()
    }
    writing = {name for name, options in commands.items() if "--output" in options}
    assert {"split", "encoder", "demo", "convert", "build"} < writing
    # A training run is continued with --resume, a sweep by starting it again.
    assert {name for name, options in commands.items() if "--force" in options} == writing - {
        "train",
        "sweep",
    }


def test_every_command_prints_json() -> None:
    import typer

    for group in typer.main.get_command(cli.app).commands.values():
        for name, command in getattr(group, "commands", {group.name: group}).items():
            options = {option for parameter in command.params for option in parameter.opts}
            assert "--json" in options, name


@pytest.mark.parametrize(
    ("words", "kind", "saying", "code"),
    [
        (("zoo", "show", "resnet51"), "UnknownNameError", "No model is named 'resnet51'", 1),
        (("export", "verify", "nowhere"), "BundleError", "nowhere is not a bundle", 1),
        (("demo", "-o", "/proc/1/demo"), "OutputError", "Cannot write /proc/1/demo: ", 1),
        (("zoo", "list", "--bogus"), "UsageError", "No such option: --bogus", 2),
        (("profile", "encoder", "--seed", "3"), "UsageError", "--seed goes with", 2),
        (("export", "bo\x1b[2Jgus"), "UsageError", "No such command 'bo\\x1b[2Jgus'", 2),
        (("zoo", "show", "x\u202egpj"), "UnknownNameError", r"'x\u202egpj'", 1),
    ],
)
def test_errors_are_json_too_where_json_is_asked_for(splitzoo, words, kind, saying, code) -> None:
    found, out, err = splitzoo(*words, "--json")
    assert found == code
    error = json.loads(out)["error"]
    assert error.keys() == {"kind", "message", "next_step", "exit_code"}
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert saying in error["message"]
    assert "\x1b[2J" not in out + err
    assert "\u202e" not in out + err
    assert "Usage: " in err if code == 2 else f"error: {error['message']}"[:60] in err


def test_an_error_exits_with_1_through_the_entry_point() -> None:
    code, out, err = finish("zoo", "show", "resnet50")
    refused((code, out, err), "No model is named 'resnet50'")


@pytest.mark.skipif(os.name == "nt", reason="pipes of a POSIX shell")
def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    line = f"{sys.executable} -m splitzoo zoo list | head -c 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
    # One that is gone from the start.
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.Popen(
            [*SPLITZOO, "zoo", "list", "--json"], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_message() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SPLITZOO, "zoo", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no space left on device" in done.stderr.lower()


def test_a_terminal_without_greek_is_no_error() -> None:
    code, out, err = finish("zoo", "show", RESNET, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert code == 0, err
    assert "Traceback" not in err
    assert RESNET in out


# Interrupted


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
@pytest.mark.parametrize(
    ("awaited", "number", "expected"),
    [("*", signal.SIGINT, 130), ("device/encoder.onnx", signal.SIGTERM, 128 + signal.SIGTERM)],
    ids=["importing", "between the two graphs"],
)
def test_a_stopped_export_leaves_nothing_behind(
    tiny_folder, tmp_path, awaited, number, expected
) -> None:
    process = start("export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "x")
    time.sleep(0.3)  # Python itself has started
    wait_for(lambda: awaited == "*" or any(tmp_path.glob(f".x.*/{awaited}")), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == expected
    assert out == ""
    assert err.strip() == "Stopped. Nothing half-written was left behind."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_an_impatient_second_interrupt_leaves_nothing_behind(tiny_folder, tmp_path) -> None:
    process = start("export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "x")
    wait_for(lambda: any(tmp_path.glob(".x.*/splitrun/__main__.py")), process)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_refused_is_not_said_to_be_resumed(splitzoo, tmp_path, monkeypatch) -> None:
    for part in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            shutil.copyfile(IMAGE, tmp_path / "data" / part / label / "1.jpg")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    words = ("--data", tmp_path / "data", "-o", tmp_path / "run")
    found = splitzoo("zoo", "train", "flowers-regnetx_002-png", *words)
    refused(found, "the folder exists and is not empty", "--resume")
    assert "If interrupted" not in found[2]
