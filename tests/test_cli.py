"""The command line as a user meets it: exit codes, streams, refusals, interruption."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitzoo import __version__, cards, cli, zoo
from splitzoo.export.targets.cpu import CpuTarget
from splitzoo.profile.report import EncoderProfile

SPLITZOO = [sys.executable, "-m", "splitzoo"]
GROUPS = {
    "zoo": ("list", "show"),
    "export": ("split", "verify", "run"),
    "profile": ("encoder",),
    "cards": ("build", "show"),
    "demo": (),
}
COMMANDS = [(), *((g,) for g in GROUPS), *((g, c) for g, names in GROUPS.items() for c in names)]
QUICK = ("--warmup", "0", "--iterations", "2", "--threads", "2")
HEAVY = ("torch", "onnx", "onnxruntime", "timm", "matplotlib", "compressai", "huggingface_hub")


@pytest.fixture
def splitzoo(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["splitzoo", *map(str, words)])
        code = cli.run()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def refused(result: tuple[int, str, str], *sayings: str, code: int = 1) -> None:
    """The exit code, nothing on stdout, and one message that says all of it."""
    found, out, err = result
    assert (found, out) == (code, "")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    for saying in sayings:
        assert saying in err


# Entry point


def start(*words: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [*SPLITZOO, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(*words: object, **options) -> tuple[int, str, str]:
    process = start(*words, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_version_is_the_packages() -> None:
    assert finish("--version") == (0, f"splitzoo {__version__}\n", "")


def test_help_names_every_command_group() -> None:
    code, out, err = finish("--help")
    assert (code, err) == (0, "")
    assert all(group in out for group in GROUPS)


def test_help_of_every_command_loads_nothing_heavy() -> None:
    # One process for all: what any of them loaded would show at the end.
    program = f"""
import sys
from splitzoo.cli import run
for words in {COMMANDS!r}:
    sys.argv = ["splitzoo", *words, "--help"]
    assert run() == 0, words
print("LOADED", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert done.stdout.count("Usage: ") == len(COMMANDS)


def test_listing_and_showing_models_load_nothing_heavy() -> None:
    program = f"""
import sys
from splitzoo.cli import run
for words in (["list"], ["list", "--json"], ["show", {zoo.DEFAULT_MODEL!r}]):
    sys.argv = ["splitzoo", "zoo", *words]
    assert run() == 0, words
print("LOADED", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_commands_tested_are_the_commands_there_are() -> None:
    import typer

    root = typer.main.get_command(cli.app)
    found = {name: tuple(getattr(one, "commands", ())) for name, one in root.commands.items()}
    assert {name: set(names) for name, names in found.items()} == {
        name: set(names) for name, names in GROUPS.items()
    }


def test_an_error_exits_with_1_through_the_entry_point() -> None:
    code, out, err = finish("zoo", "show", "resnet50")
    refused((code, out, err), "No model is named 'resnet50'")


@pytest.mark.skipif(os.name == "nt", reason="pipes of a POSIX shell")
@pytest.mark.parametrize("options", ["", "--json"])
def test_a_reader_that_goes_away_leaves_no_traceback(options) -> None:
    line = f"{sys.executable} -m splitzoo zoo list {options} | head -c 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes of a POSIX shell")
def test_a_reader_that_is_gone_from_the_start_leaves_no_traceback() -> None:
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


@pytest.mark.parametrize("command", [("zoo", "list"), ("zoo", "show", zoo.DEFAULT_MODEL)])
def test_a_terminal_without_greek_is_no_error(command) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    code, out, err = finish(*command, env=environment)
    assert code == 0, err
    assert "Traceback" not in err
    assert zoo.DEFAULT_MODEL in out


# Usage


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("--bogus",),
        ("zoo", "bogus"),
        ("zoo", "list", "--bogus"),
        ("export", "run", "bundle"),
        ("export", "verify"),
        ("export", "split", "--seed", "3"),
        ("export", "split", "--random-weights", "--seed", "-1"),
        ("export", "split", "--random-weights", "--seed", "one"),
        ("profile", "encoder", "--seed", "3"),
        ("profile", "encoder", "--random-weights", "--iterations", "0"),
        ("demo", "--seed", "3"),
        ("cards", "show"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(splitzoo, tmp_path, monkeypatch, words) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = splitzoo(*words)
    assert (code, out) == (2, "")
    assert "Usage: " in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_seed_alone_is_answered_with_the_missing_option(splitzoo) -> None:
    _, _, err = splitzoo("export", "split", "--seed", "3")
    assert "--seed goes with --random-weights." in err


# Names and weights

UNKNOWN_MODEL = "splitable_resnet50-fp-beta0.08"


@pytest.mark.parametrize(
    "words",
    [
        ("zoo", "show", UNKNOWN_MODEL),
        ("export", "split", UNKNOWN_MODEL, "--random-weights"),
        ("profile", "encoder", UNKNOWN_MODEL, "--random-weights"),
        ("cards", "build", UNKNOWN_MODEL),
        ("cards", "show", UNKNOWN_MODEL),
    ],
    ids=" ".join,
)
def test_an_unknown_model_is_answered_with_close_ones(
    splitzoo, tmp_path, monkeypatch, words
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(
        splitzoo(*words),
        f"No model is named '{UNKNOWN_MODEL}'.",
        "Did you mean splittable_resnet50-fp-beta0.08 or ",
        "splitzoo zoo list",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_no_model(splitzoo) -> None:
    refused(splitzoo("zoo", "show", "nowhere/model"), "No model folder is named 'nowhere/model'")


def test_an_unknown_target_is_answered_with_close_ones(splitzoo, tmp_path) -> None:
    result = splitzoo("export", "split", "--random-weights", "--target", "cpuu", "-o", tmp_path)
    refused(result, "No target is named 'cpuu'.", "Did you mean cpu?")


def test_an_unknown_device_is_answered_with_close_ones(splitzoo) -> None:
    result = splitzoo("profile", "encoder", "--random-weights", "--device", "cpuu")
    refused(result, "No device is named 'cpuu'.", "Did you mean cpu?")


@pytest.mark.parametrize(
    "words", [("export", "split"), ("profile", "encoder"), ("demo",)], ids=" ".join
)
def test_missing_weights_say_what_to_do(splitzoo, tmp_path, monkeypatch, words) -> None:
    monkeypatch.chdir(tmp_path)
    refused(splitzoo(*words), f"No weights for {zoo.DEFAULT_MODEL}", "--random-weights")
    assert list(tmp_path.iterdir()) == []


# zoo


def test_zoo_list_shows_every_model(splitzoo) -> None:
    code, out, _ = splitzoo("zoo", "list")
    assert code == 0
    assert re.findall(r"splittable_resnet50-fp-beta[\d.]+", out) == zoo.list_models()


def test_zoo_list_takes_a_pattern(splitzoo) -> None:
    code, out, _ = splitzoo("zoo", "list", "*beta5*", "--json")
    assert code == 0
    assert [spec["name"] for spec in json.loads(out)] == ["splittable_resnet50-fp-beta5.12"]


def test_zoo_list_of_json_is_the_specs(splitzoo) -> None:
    code, out, _ = splitzoo("zoo", "list", "--json")
    assert code == 0
    specs = [zoo.ModelSpec.model_validate(spec) for spec in json.loads(out)]
    assert specs == [zoo.get_spec(name) for name in zoo.list_models()]


def test_zoo_list_of_nothing_hints_on_stderr(splitzoo) -> None:
    code, out, err = splitzoo("zoo", "list", "mobilenet", "--json")
    assert (code, out) == (0, "[]\n")
    assert "splitzoo zoo list" in err


def test_zoo_show_of_a_name_and_of_a_folder(splitzoo, tiny_model, tiny_folder) -> None:
    code, out, err = splitzoo("zoo", "show", zoo.DEFAULT_MODEL)
    assert (code, err) == (0, "")
    assert "24×55×55 = 72,600 symbols" in out
    code, out, _ = splitzoo("zoo", "show", tiny_folder, "--json")
    assert code == 0
    assert zoo.ModelSpec.model_validate_json(out) == tiny_model.spec


# export split


@pytest.fixture
def copied_graphs(monkeypatch, tiny_bundle):
    """Export takes its graphs from the tiny bundle: the same, and no seconds spent."""

    def copy(_target, _graph, _example, path, **_options) -> None:
        shutil.copyfile(tiny_bundle / path.parent.name / path.name, path)

    monkeypatch.setattr(CpuTarget, "export", copy)


def test_export_split_of_json_prints_the_manifest(
    splitzoo, copied_graphs, tiny_folder, tmp_path
) -> None:
    folder = tmp_path / "b"
    code, out, err = splitzoo(
        "export", "split", tiny_folder, "--random-weights", "-o", folder, "--json"
    )
    assert code == 0
    assert json.loads(out) == json.loads((folder / "manifest.json").read_text())
    assert "The weights are random" in err
    assert f"splitzoo export run {folder}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_export_split_says_what_it_made(splitzoo, copied_graphs, tiny_folder, tmp_path) -> None:
    code, out, _ = splitzoo(
        "export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "b"
    )
    assert code == 0
    assert re.search(r"weights +random", out)
    assert re.search(r"symbols differing +\d+ of 36,300", out)


def test_export_split_names_the_folder_after_model_and_target(
    splitzoo, copied_graphs, tiny_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert splitzoo("export", "split", tiny_folder, "--random-weights")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-cpu"]


def test_the_command_in_the_manifest_can_be_run_again(
    splitzoo, copied_graphs, tiny_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert splitzoo("export", "split", tiny_folder, "--random-weights", "-o", "first")[0] == 0
    first = json.loads(Path("first/manifest.json").read_text())
    program, *words = first["provenance"]["command"].split()
    assert program == "splitzoo"
    code, _, err = splitzoo(*words, "-o", "second")
    assert (code, Path("second/manifest.json").exists()) == (0, True), err
    second = json.loads(Path("second/manifest.json").read_text())
    assert second["provenance"]["model_sha256"] == first["provenance"]["model_sha256"]


def test_failed_parity_exits_with_3(splitzoo, copied_graphs, tiny_folder, tmp_path) -> None:
    words = ("--random-weights", "--seed", "1", "-o", tmp_path / "b")
    refused(splitzoo("export", "split", tiny_folder, *words), "symbols differ", code=3)
    assert list(tmp_path.iterdir()) == []


def test_export_split_leaves_a_taken_folder_alone(splitzoo, tiny_folder, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = splitzoo("export", "split", tiny_folder, "--random-weights", "-o", tmp_path)
    refused(result, f"Cannot write {tmp_path}: the folder exists and is not empty", "with -o")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_export_split_below_a_file_is_refused(splitzoo, tiny_folder, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "b"
    result = splitzoo("export", "split", tiny_folder, "--random-weights", "-o", place)
    refused(result, f"Cannot write {place}: ", "with -o")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@contextlib.contextmanager
def disk_of(size_bytes: int):
    """Files end at a size, as on a disk that fills up."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python would leave truncated caches of the modules that it imports meanwhile, and trip over
    # them ever after.
    caches, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = caches


# In turn, what no longer fits: the self-test record, the edge graph.
@pytest.mark.parametrize("size_bytes", [100_000, 1_000_000])
def test_a_full_disk_leaves_nothing_behind(
    splitzoo, copied_graphs, tiny_folder, tmp_path, size_bytes
) -> None:
    with disk_of(size_bytes):
        result = splitzoo("export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "b")
    refused(result, f"Cannot write {tmp_path / 'b'}: file too large", "Nothing was left behind")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_at_the_report_leaves_nothing_behind(
    splitzoo, tiny_folder, tmp_path
) -> None:
    report = tmp_path / "report.json"
    words = ("profile", "encoder", tiny_folder, "--random-weights", *QUICK, "-o", report)
    with disk_of(1000):
        code, out, err = splitzoo(*words)
    assert (code, out) == (1, "")
    assert f"Cannot write {report}" in err
    assert list(tmp_path.iterdir()) == []


# export verify and run


def test_export_verify_says_what_it_checked(splitzoo, tiny_bundle) -> None:
    code, out, err = splitzoo("export", "verify", tiny_bundle)
    assert (code, err.strip()) == (0, "")
    assert "as the manifest says" in out
    assert re.search(r"symbols +12,100 of 12,100 equal", out)


def test_export_verify_of_json(splitzoo, tiny_bundle) -> None:
    code, out, _ = splitzoo("export", "verify", tiny_bundle, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["files"] == len(result["manifest"]["files"])
    assert result["selftest"]["symbols"] == 12_100


def test_export_verify_of_a_changed_file(splitzoo, tiny_bundle, tmp_path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    (bundle / "labels.json").write_text("[]")
    refused(splitzoo("export", "verify", bundle), "labels.json was changed", "export the bundle")


@pytest.mark.parametrize("command", ["verify", "run"])
def test_a_folder_that_is_no_bundle(splitzoo, tmp_path, photo, command) -> None:
    images = [photo] if command == "run" else []
    refused(
        splitzoo("export", command, tmp_path, *images),
        f"{tmp_path} is not a bundle: it has no manifest.json.",
        "splitzoo export split",
    )


def test_export_run_of_two_images(splitzoo, tiny_bundle, photo, photographs) -> None:
    code, out, err = splitzoo("export", "run", tiny_bundle, photo, photographs[0])
    assert code == 0
    # A long path wraps the line that it stands in.
    assert len(re.findall(r"[\d,]+ bytes sent", " ".join(out.split()))) == 2
    assert len(re.findall(r"class \d +\d+\.\d%", out)) == 10
    assert "these answers mean nothing" in err


def test_export_run_of_json(splitzoo, tiny_bundle, photo, tiny_model) -> None:
    code, out, _ = splitzoo("export", "run", tiny_bundle, photo, "--top", "3", "--json")
    assert code == 0
    (one,) = json.loads(out)
    assert one["image"] == str(photo)
    assert one["stream_bytes"] == one["payload_bytes"] + 12
    assert len(one["top"]) == 3
    assert one["top"][0].keys() == {"index", "label", "probability"}


def test_export_run_names_the_bad_image_among_good_ones(
    splitzoo, tiny_bundle, photo, tmp_path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(photo.read_bytes()[:1000])
    refused(splitzoo("export", "run", tiny_bundle, photo, bad), f"Cannot use the image {bad}: ")
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize("name", ["-o.jpg", "--help", "a b.jpg", "[red]x.jpg", "ünï.jpg"])
def test_export_run_takes_images_of_any_name(
    splitzoo, tiny_bundle, photo, tmp_path, monkeypatch, name
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(photo, name)
    code, out, err = splitzoo("export", "run", tiny_bundle, "--", name)
    assert code == 0, err
    assert f"{name}: " in out


def test_labels_that_cannot_be_printed_are_no_traceback(
    splitzoo, tiny_bundle, photo, tmp_path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    labels = ["\ud800" if index % 2 else "\x1b[2J" for index in range(10)]
    (bundle / "labels.json").write_text(json.dumps(labels))
    code, _, err = splitzoo("export", "run", bundle, photo)
    assert code in (0, 1)
    assert "Traceback" not in err


# profile


def test_profile_of_a_model_as_tables_and_report(
    splitzoo, tiny_folder, photographs, tmp_path
) -> None:
    report = tmp_path / "new" / "report.json"
    images = photographs[0].parent
    code, out, err = splitzoo(
        *("profile", "encoder", tiny_folder, "--random-weights", "--seed", 4),
        *(*QUICK, "--images", images, "-o", report),
    )
    assert code == 0
    saved = EncoderProfile.model_validate_json(report.read_text())
    assert (saved.subject, saved.weights, saved.seed) == ("model", "random", 4)
    assert saved.rate is not None
    assert saved.rate.count + len(saved.rate.skipped) >= 10
    assert re.search(r"weights +random, seed 4", out)
    assert f"{saved.size.encoder_bits:,} bits" in out
    assert re.search(r"not counted +nothing", out)
    assert f"splitzoo cards build --profile {report}" in err
    assert [path.name for path in report.parent.iterdir()] == ["report.json"]


def test_profile_of_a_bundle_as_json(splitzoo, tiny_bundle, tmp_path) -> None:
    report = tmp_path / "report.json"
    code, out, _ = splitzoo("profile", "encoder", tiny_bundle, *QUICK, "--json", "-o", report)
    assert code == 0
    assert json.loads(out) == json.loads(report.read_text())
    profile = EncoderProfile.model_validate_json(out)
    assert (profile.subject, profile.weights, profile.seed) == ("bundle", "random", 0)
    assert profile.size.graph_bytes == (tiny_bundle / "device/encoder.onnx").stat().st_size
    assert profile.size.tables_bytes == (tiny_bundle / "tables.npz").stat().st_size
    assert profile.rate is None
    assert any("bytes per image" in what for what in profile.not_measured)
    assert set(profile.latency.steps) == {"encoder", "entropy coding", "framing", "total"}


def test_profile_refuses_random_weights_for_a_bundle(splitzoo, tiny_bundle) -> None:
    code, out, err = splitzoo("profile", "encoder", tiny_bundle, "--random-weights")
    assert (code, out) == (2, "")
    assert "a bundle has its own weights" in err


def test_profile_of_a_folder_without_images(splitzoo, tiny_folder, tmp_path) -> None:
    words = ("profile", "encoder", tiny_folder, "--random-weights", "--images", tmp_path)
    refused(splitzoo(*words), f"Cannot use the image {tmp_path}: ")


def test_profile_tells_how_it_was_called_so_that_a_shell_repeats_it(
    splitzoo, tiny_folder, photo, tmp_path
) -> None:
    import shlex

    folder = tmp_path / "my photographs"
    folder.mkdir()
    shutil.copyfile(photo, folder / "one.jpg")
    words = ["profile", "encoder", str(tiny_folder), "--random-weights", *QUICK]
    words += ["--images", str(folder), "--json"]
    code, out, _ = splitzoo(*words)
    assert code == 0
    assert shlex.split(json.loads(out)["command"]) == ["splitzoo", *words]


# cards


def test_cards_build_prints_the_path_of_the_card(splitzoo, tmp_path) -> None:
    folder = tmp_path / "card"
    code, out, err = splitzoo("cards", "build", "-o", folder)
    assert (code, out) == (0, f"{folder / 'README.md'}\n")
    assert "It holds no measurements." in err
    assert "It holds no parity and no hashes." in err
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "split.png"]


def test_cards_build_leaves_a_taken_folder_alone(splitzoo, tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    refused(splitzoo("cards", "build", "-o", tmp_path), "exists and is not empty")
    assert (tmp_path / "README.md").read_text() == "mine"


def test_cards_build_of_a_report_that_is_not_there(splitzoo, tmp_path) -> None:
    missing = tmp_path / "missing.json"
    result = splitzoo("cards", "build", "--profile", missing, "-o", tmp_path / "card")
    refused(result, f"Cannot read {missing}", "splitzoo profile encoder -o report.json")
    assert list(tmp_path.iterdir()) == []


def test_cards_show_reads_a_folder_a_file_and_a_name(splitzoo, tmp_path) -> None:
    path = cards.build_card(tmp_path / "card")
    shown = [splitzoo("cards", "show", what) for what in (path, path.parent, zoo.DEFAULT_MODEL)]
    assert [code for code, _, _ in shown] == [0, 0, 0]
    assert shown[0][1] == shown[1][1] == shown[2][1]
    assert "image-classification" in shown[0][1]
    assert zoo.DEFAULT_MODEL in shown[0][1]


@pytest.mark.parametrize("content", [b"---\nkey: [\n---\n", b"\xff\xfe"])
def test_cards_show_of_a_damaged_card(splitzoo, tmp_path, content) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    refused(splitzoo("cards", "show", path), "card")


# Interrupted


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 100
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# While importing, with the temporary folder begun, and between the two graphs.
MOMENTS = {
    "importing": lambda _folder: True,
    "exporting": lambda folder: any(folder.glob(".x.*/splitrun/__main__.py")),
    "half done": lambda folder: any(folder.glob(".x.*/device/encoder.onnx")),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
@pytest.mark.parametrize(
    ("moment", "number", "expected"),
    [
        *((moment, signal.SIGINT, 1) for moment in MOMENTS),
        ("half done", signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_a_stopped_export_leaves_nothing_behind(
    tiny_folder, tmp_path, moment, number, expected
) -> None:
    process = start("export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "x")
    time.sleep(0.3)  # Python itself has started
    wait_for(lambda: MOMENTS[moment](tmp_path), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == expected
    assert out == ""
    assert err.strip() == "Stopped. Nothing half-written was left behind."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_an_impatient_second_interrupt_leaves_nothing_behind(tiny_folder, tmp_path) -> None:
    process = start("export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "x")
    wait_for(lambda: MOMENTS["exporting"](tmp_path), process)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# demo


@pytest.mark.slow
def test_demo_goes_from_model_to_card(tmp_path) -> None:
    picture = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    folder = tmp_path / "out"
    code, out, err = finish("demo", "--random-weights", "--image", picture, "-o", folder)
    assert code == 0, err
    for row in ("model", "stream bytes", "device ms", "edge ms", "encoder bits", "MACs", "parity"):
        assert re.search(rf"^ *{row} +\S", out, re.MULTILINE)
    for name in ("bundle", "profile.json", "card/README.md", "photos/noise.png"):
        assert (folder / name).exists()
        assert f"{folder}/{name}" in out
    assert "The weights are random" in err

    profile = EncoderProfile.model_validate_json((folder / "profile.json").read_text())
    assert profile.rate is not None
    # The card says by which command its numbers were measured: on photographs, as they were.
    assert "--images" in profile.command
    verified = finish("export", "verify", folder / "bundle")
    assert verified[0] == 0, verified[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.png", "out"]


def test_demo_leaves_a_taken_folder_alone(splitzoo, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused(splitzoo("demo", "--random-weights", "-o", tmp_path), "exists and is not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_demo_of_an_image_that_is_none_leaves_nothing_behind(
    splitzoo, copied_graphs, tiny_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("splitzoo.zoo.catalog.DEFAULT_MODEL", str(tiny_folder))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    words = ("demo", "--random-weights", "--image", bad, "-o", tmp_path / "out")
    refused(splitzoo(*words), f"Cannot use the image {bad}: ")
    assert list(tmp_path.iterdir()) == [bad]


def test_a_table_in_a_pipe_has_a_line_for_each_model(splitzoo, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    _, out, _ = splitzoo("zoo", "list")
    lines = [line.split() for line in out.splitlines() if "splittable" in line]
    assert lines == [
        [name, "image-classification", "entropic-student", name.partition("beta")[2]]
        for name in zoo.list_models()
    ]


def test_a_report_does_not_replace_another_file(splitzoo, tiny_bundle, tmp_path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"mine")
    refused(splitzoo("profile", "encoder", tiny_bundle, "-o", photo), "its name is not a report's")
    assert photo.read_bytes() == b"mine"


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    splitzoo, tiny_bundle, tmp_path, monkeypatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("splitzoo.profile.encoder.profile_bundle", pytest.fail)
    output = tmp_path / "file" / "report.json"
    refused(splitzoo("profile", "encoder", tiny_bundle, "-o", output), "Cannot write")


def test_the_encoder_of_a_bundle_of_an_impossible_model_is_refused(
    splitzoo, tiny_bundle, tmp_path
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["spec"]["backbone"] = "vit_tiny_patch16_224"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(splitzoo("profile", "encoder", folder, "--iterations", "1"), "cannot be built")
