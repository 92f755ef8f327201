"""One half of a bundle by itself: parted, run, tested, and refused where the other is needed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from board import on_board
from small_models import small_spec

from splitrun.bundle import open_bundle
from splitrun.cli import main
from splitrun.errors import BundleError
from splitrun.files import sha256_file
from splitrun.halves import Device, Edge
from splitrun.record import EdgeRecord
from splitrun.selftest import run_selftest
from splitzoo import export, zoo

HALVES = ("device", "edge")


def part(whole: Path, folder: Path, half: str) -> Path:
    assert main(["part", str(whole), "--half", half, "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def halves(tiny_bundle, tmp_path_factory) -> dict[str, Path]:
    """The halves of the tiny bundle, each in its folder."""
    folder = tmp_path_factory.mktemp("halves")
    return {half: part(tiny_bundle, folder / half, half) for half in HALVES}


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("splitrun/")}


# What a half holds


def test_a_half_holds_its_own_files_and_what_both_need(halves) -> None:
    both = {"manifest.json", "README.md", "requirements.txt", "tables.npz"}
    assert files(halves["device"]) == both | {"device/encoder.onnx", "device/selftest.npz"}
    edge = {f"edge/{name}" for name in ("decoder.onnx", "labels.json", "selftest.npz")}
    assert files(halves["edge"]) == both | edge
    manifests = [json.loads((halves[half] / "manifest.json").read_text()) for half in HALVES]
    for half, manifest in zip(HALVES, manifests, strict=True):
        assert manifest["halves"] == [half]
        assert {name for name in manifest["files"] if not name.startswith("splitrun/")} == files(
            halves[half]
        ) - {"manifest.json"}
        assert (halves[half] / "splitrun/__main__.py").is_file()
        open_bundle(halves[half]).check_files()
    device, edge = manifests
    assert device["coding"] == edge["coding"]


@pytest.mark.parametrize("half", HALVES)
def test_export_writes_the_same_half_as_part(
    splitzoo, copied_graphs, tiny_folder, tmp_path, half
) -> None:
    words = ("export", "split", tiny_folder, "--random-weights")
    code, out, _ = splitzoo(*words, "-o", tmp_path / "whole")
    assert code == 0
    code, out, err = splitzoo(*words, "--half", half, "-o", tmp_path / "half")
    assert (code, f"{half} half" in out) == (0, True), err
    assert "part" not in err
    parted = part(tmp_path / "whole", tmp_path / "parted", half)
    assert files(tmp_path / "half") == files(parted)
    for name in files(parted):
        assert (tmp_path / "half" / name).read_bytes() == (parted / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "parted", "whole"]


def test_requirements_are_those_of_the_half(tiny_model, tmp_path, monkeypatch) -> None:
    pytest.importorskip("openvino", reason="the target openvino needs it")
    whole = tmp_path / "whole"
    export.split(tiny_model, whole, target="openvino", edge="onnxruntime")
    for half, engine in (("device", "openvino"), ("edge", "onnxruntime")):
        lines = (part(whole, tmp_path / half, half) / "requirements.txt").read_text().splitlines()
        assert [line.partition(">")[0] for line in lines[:2]] == ["numpy", "pillow"]
        assert [line.startswith(engine) for line in lines[3:]] == [True]


# Run by itself


def test_two_machines_with_a_half_each_do_what_pytorch_does(
    halves, tiny_model, photo, tmp_path
) -> None:
    stream, image = tmp_path / "a.sz", tiny_model.spec.preprocessing.load(photo)
    done = on_board(halves["device"], "encode", photo, "-o", stream)
    assert (done.returncode, done.stderr) == (0, "")
    (expected,) = tiny_model.compress(torch.from_numpy(image))
    assert stream.read_bytes() == expected
    done = on_board(halves["edge"], "decode", stream, "--top", "10", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    shares = tiny_model.decompress([expected])[0].double().softmax(0)
    top = json.loads(done.stdout)["outputs"][0]["top"]
    found = [score["probability"] for score in top]
    np.testing.assert_allclose(found, shares.sort(descending=True).values, rtol=1e-3)


@pytest.mark.parametrize("half", HALVES)
def test_a_half_tests_itself_and_measures_itself_on_its_machine(halves, half) -> None:
    (other,) = {*HALVES} - {half}
    done = on_board(halves[half], "selftest")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{half} half" in done.stdout
    assert f"{other} half" in done.stdout.partition("not here")[0].splitlines()[-1]
    tested = json.loads(on_board(halves[half], "selftest", "--json").stdout)
    assert (bool(tested["device"]), bool(tested["edge"])) == (half == "device", half == "edge")
    done = on_board(halves[half], "bench", "--warmup", 0, "--iterations", 2, "--json")
    (measured,) = json.loads(done.stdout)
    assert measured["half"] == half


def test_info_says_which_half_is_here_and_how_large(halves, capsys) -> None:
    for half in HALVES:
        (other,) = {*HALVES} - {half}
        main(["info", str(halves[half])])
        lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
        assert lines[half].endswith("B to run")
        assert lines[other] == "not here"
        main(["info", str(halves[half]), "--json"])
        facts = json.loads(capsys.readouterr().out)
        loaded = {
            "device": ("device/encoder.onnx", "tables.npz"),
            "edge": ("edge/decoder.onnx", "edge/labels.json", "tables.npz"),
        }[half]
        assert facts["size_bytes"] == {half: sum((halves[half] / n).stat().st_size for n in loaded)}
        assert facts["stream_id"] in lines["id"]


def test_a_half_behind_a_hyperprior_tests_itself(tmp_path) -> None:
    export.split(zoo.build(small_spec("image-classification", "mshp-float")), tmp_path / "whole")
    whole = run_selftest(open_bundle(tmp_path / "whole"))
    halves = {half: open_bundle(part(tmp_path / "whole", tmp_path / half, half)) for half in HALVES}
    assert run_selftest(halves["device"]).device == whole.device
    assert run_selftest(halves["edge"]).edge == whole.edge
    assert list(halves["edge"].graphs) == ["hyper", "edge"]


def test_the_bundle_may_be_named_before_or_after_the_command(
    halves, capsys, tmp_path, monkeypatch
) -> None:
    device = str(halves["device"])
    for words in (
        *(["--bundle", device, "info"], ["info", device]),
        *(["--bundle", device, "selftest"], ["selftest", "--bundle", device]),
    ):
        assert main(words) == 0
        assert capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    for words in (["info"], ["part", "--half", "edge", "-o", "x"], ["selftest"]):
        assert main(words) == 2
        said = "error: There is no bundle here: name its folder with --bundle.\n"
        assert capsys.readouterr().err == said
    monkeypatch.chdir(device)
    assert main(["info"]) == 0


# The other half is needed


def refused(code: int, captured, half: str) -> None:
    (other,) = {*HALVES} - {half}
    assert (code, captured.out) == (1, "")
    assert f"holds the {other} half alone, and this needs the {half} half of model " in captured.err
    assert f"splitrun part WHOLE --half {half} -o DIR" in captured.err
    assert f"splitzoo export split MODEL --half {half}" in captured.err
    assert captured.err.count("error") == 1


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("device", ("encode", "photo.jpg")),
        ("device", ("bench", "--half", "device")),
        ("device", ("bench", "--half", "both")),
        ("edge", ("bench", "--half", "edge")),
        ("edge", ("bench", "--half", "both")),
        ("edge", ("bench", "--tail", "classification")),
        ("edge", ("decode", "a.sz")),
    ],
)
def test_a_command_names_the_half_that_it_lacks(halves, capsys, missing, words) -> None:
    (other,) = {*HALVES} - {missing}
    refused(main(["--bundle", str(halves[other]), *words]), capsys.readouterr(), missing)


@pytest.mark.parametrize("half", HALVES)
def test_a_half_that_is_not_here_cannot_be_parted(halves, capsys, tmp_path, half) -> None:
    (other,) = {*HALVES} - {half}
    code = main(["part", str(halves[other]), "--half", half, "-o", str(tmp_path / "half")])
    refused(code, capsys.readouterr(), half)
    assert list(tmp_path.iterdir()) == []


def test_splitzoo_works_on_a_half_or_names_the_other(splitzoo, halves, photo, tmp_path) -> None:
    for half in HALVES:
        (other,) = {*HALVES} - {half}
        code, out, _ = splitzoo("export", "verify", halves[half])
        assert (code, f"{half} half" in out, "not here" in out) == (0, True, True)
        code, _, err = splitzoo("export", "run", halves[half], photo)
        assert (code, f"this needs the {other} half" in err) == (1, True)
    report = tmp_path / "report.json"
    words = ("profile", "encoder", halves["device"], "--iterations", 2, "-o", report)
    assert splitzoo(*words)[0] == 0
    code, _, err = splitzoo("profile", "encoder", halves["edge"])
    assert (code, "this needs the device half" in err) == (1, True)
    words = ("cards", "build", "--profile", report, "--bundle")
    for half in HALVES:
        assert splitzoo(*words, halves[half], "-o", tmp_path / half)[0] == 0
        card = (tmp_path / half / "README.md").read_text()
        assert ("`device/encoder.onnx`" in card, "`edge/decoder.onnx`" in card) == (
            half == "device",
            half == "edge",
        )


# Damaged and hostile


def test_a_changed_file_is_not_parted(damaged, tmp_path, capsys) -> None:
    (damaged / "device/encoder.onnx").write_bytes(b"another")
    code = main(["part", str(damaged), "--half", "device", "-o", str(tmp_path / "half")])
    assert (code, (tmp_path / "half").exists()) == (1, False)
    assert "device/encoder.onnx was changed" in capsys.readouterr().err
    part(damaged, tmp_path / "edge", "edge")  # which it is not part of


@pytest.fixture
def rewritten(halves, tmp_path) -> Callable[..., Path]:
    """Copy a half and change its manifest."""

    def rewrite(half: str, edit: Callable[[dict], object]) -> Path:
        folder = shutil.copytree(halves[half], tmp_path / half)
        content = json.loads((folder / "manifest.json").read_text())
        edit(content)
        (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    return rewrite


def test_a_half_that_claims_to_be_both_is_refused(rewritten) -> None:
    folder = rewritten("device", lambda content: content.update(halves=["device", "edge"]))
    with pytest.raises(BundleError, match=r"edge/decoder\.onnx is used but not listed"):
        open_bundle(folder)


def test_a_half_that_lists_a_file_of_the_other_is_refused(rewritten) -> None:
    folder = rewritten(
        "device", lambda content: content["files"].update({"edge/decoder.onnx": "0" * 64})
    )
    with pytest.raises(BundleError, match=r"lists edge/decoder\.onnx, of a half that is not here"):
        open_bundle(folder)


def test_an_absent_half_cannot_name_a_path_outside_the_folder(rewritten) -> None:
    def outside(content: dict) -> None:
        content["edge"]["tails"]["classification"]["labels"] = "../labels.json"

    with pytest.raises(BundleError, match=r"outside the bundle: '\.\./labels\.json'"):
        open_bundle(rewritten("device", outside))


def test_a_half_is_held_to_the_wire_that_both_share(rewritten) -> None:
    def other(content: dict) -> None:
        content["device"]["graph"]["outputs"][0]["dtype"] = "uint8"

    with pytest.raises(BundleError, match="the halves do not meet: symbols"):
        open_bundle(rewritten("edge", other))


# Several tails


@pytest.fixture
def two_tails(damaged) -> Path:
    """The tiny bundle with a second tail: the same network with other names of its classes."""
    path = damaged / "manifest.json"
    content = json.loads(path.read_text())
    tails = content["edge"]["tails"]
    labels = json.dumps([f"second {number}" for number in range(10)])
    (damaged / "edge/second.json").write_text(labels)
    provenance = content["provenance"] | {"weights": "trained", "seed": None}
    own = {"labels": "edge/second.json", "provenance": provenance, "spec": content["spec"]}
    tails["second"] = tails["classification"] | own
    content["files"]["edge/second.json"] = sha256_file(damaged / "edge/second.json")
    path.write_text(json.dumps(content))
    return damaged


def test_several_tails_read_the_same_stream(two_tails, tmp_path, capsys) -> None:
    bundle, stream = open_bundle(two_tails), tmp_path / "a.sz"
    stream.write_bytes(EdgeRecord.load(bundle, "second").stream)
    found = {}
    for tail in ("classification", "second"):
        words = ["--bundle", str(two_tails), "decode", str(stream), "--tail", tail, "--json"]
        assert main(words) == 0
        document = json.loads(capsys.readouterr().out)
        found[tail] = document["outputs"][0]["top"]
        assert document["weights"] == ("trained" if tail == "second" else "random")
    first, second = found.values()
    assert [score["index"] for score in first] == [score["index"] for score in second]
    assert second[0]["label"] == f"second {second[0]['index']}"
    assert list(run_selftest(bundle).edge) == list(found)
    assert list(bundle.graphs) == ["device", "classification edge", "second edge"]


def test_which_of_several_tails_has_to_be_said(two_tails, capsys) -> None:
    for words, wrong in (((), "has several tails"), (("--tail", "third"), "has no tail 'third'")):
        assert main(["--bundle", str(two_tails), "decode", "a.sz", *words]) == 1
        assert capsys.readouterr().err == (
            f"error: {two_tails} {wrong}.\nChoose one of: classification, second.\n"
        )
    Device(open_bundle(two_tails))  # which serves both
    with pytest.raises(BundleError, match="has several tails"):
        Edge(open_bundle(two_tails))


# Where something is


def test_a_bundle_is_replaced_by_force_alone_and_nothing_of_it_stays(
    damaged, halves, capsys
) -> None:
    words = ["part", str(damaged), "--half", "device", "-o", str(damaged)]
    (damaged / "mine.txt").write_text("mine")
    assert main(words) == 1
    assert "the folder exists and is not empty" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0  # in its place
    assert files(damaged) == files(halves["device"]) | {"mine.txt"}
    (damaged / "mine.txt").unlink()
    assert not (damaged / "edge").exists()
    run_selftest(open_bundle(damaged))
