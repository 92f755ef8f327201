"""The runtime that a bundle carries: alone on a board, and before streams that are not its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from board import ABSENT, BLOCKED, RUN, on_board
from PIL import Image

from splitrun.bundle import open_bundle
from splitrun.cli import main
from splitrun.coding import write_stream
from splitrun.errors import BitstreamError
from splitrun.halves import Device, Edge
from splitrun.record import EdgeRecord


@pytest.fixture(scope="module")
def board(bundle):
    """Run ``python -m splitrun`` in the bundle's folder as on a board."""
    return lambda *arguments: on_board(bundle, *arguments)


@pytest.fixture
def splitrun(tiny_bundle, capsys):
    """Run a command of the runtime in this process on the tiny bundle: code, stdout, stderr."""

    def run(*arguments: object, bundle: Path = tiny_bundle) -> tuple[int, str, str]:
        try:
            code = main(["--bundle", str(bundle), *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def stream(good, tmp_path):
    """A good stream of the tiny bundle, as a file."""
    path = tmp_path / "good.sz"
    path.write_bytes(good)
    return path


def refused(result: tuple[int, str, str], saying: str) -> None:
    """Exit code 1, no result on stdout, one message that names what is wrong."""
    code, out, err = result
    assert code == 1
    if out:  # with --json
        error = json.loads(out)["error"]
        assert (error["exit_code"], error["kind"][-5:]) == (1, "Error")
        assert err.splitlines()[0] == f"error: {error['message']}"
    assert err.startswith("error: ")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert saying in err


# On a board: the real model, in processes without torch


def test_the_board_lacks_what_it_should() -> None:
    # Otherwise the tests below would prove nothing.
    tried = "try:\n    import {0}\n    print('{0}')\nexcept ModuleNotFoundError:\n    pass\n"
    code = BLOCKED + "".join(map(tried.format, ABSENT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_selftest_passes_on_the_board(board) -> None:
    done = board("selftest", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["passed"] is True
    device, edge = result["device"], result["edge"]["classification"]
    assert device["symbols"] == 24 * 55 * 55
    assert device["symbols_differing"] <= device["symbols_tied"]
    assert edge["output_relative_error"] <= edge["output_tolerance"] == 1e-4


def test_the_board_and_the_edge_agree_with_pytorch(board, model, photo, tmp_path) -> None:
    path = tmp_path / "photo.sz"
    encoded = board("encode", photo, "-o", path, "--json")
    assert (encoded.returncode, encoded.stderr) == (0, "")
    decoded = board("decode", path, "--top", 1000, "--json")
    assert (decoded.returncode, decoded.stderr) == (0, "")

    (expected,) = model.compress(torch.from_numpy(model.spec.preprocessing.load(photo)))
    assert path.read_bytes() == expected
    (sent,) = json.loads(encoded.stdout)["streams"]
    assert sent == {
        "image": str(photo),
        "stream": str(path),
        "payload_bytes": len(expected) - 12,
        "stream_bytes": len(expected),
    }
    predictions = json.loads(decoded.stdout)
    assert predictions.keys() == {"outputs", "errors", "weights"}
    assert predictions["weights"] == "random"
    top = predictions["outputs"][0]["top"]
    logits = model.decompress([expected])[0].double()
    shares = logits.softmax(0)
    assert top[0]["index"] == int(logits.argmax())
    assert sorted(score["index"] for score in top) == list(range(1000))
    np.testing.assert_allclose(
        [score["probability"] for score in top],
        [shares[score["index"]] for score in top],
        rtol=1e-3,
    )


def test_bench_measures_both_halves_on_the_board(board, photo) -> None:
    done = board("bench", "--json", "--warmup", 1, "--iterations", 3, "--image", photo)
    assert (done.returncode, done.stderr) == (0, "")
    device, edge = json.loads(done.stdout)
    assert (device["half"], edge["half"]) == ("device", "edge")
    assert [*device["latency"]] == [
        *("preprocessing", "encoder", "entropy coding", "framing", "total")
    ]
    assert [*edge["latency"]] == ["framing", "entropy coding", "decoder", "total"]
    for half in (device, edge):
        assert (half["warmup"], half["iterations"]) == (1, 3)
        assert half["stream_bytes"] == half["payload_bytes"] + 12
        assert half["engine"].startswith("onnxruntime ")
        assert {"cpu", "cores", "system", "python", "numpy"} <= half["environment"].keys()
        for times in half["latency"].values():
            assert 0 < times["p50_ms"] <= times["p90_ms"] <= times["p99_ms"]
    assert 0 < device["peak_memory_bytes"] < 250e6


def test_a_board_without_the_engine_says_what_to_install(bundle) -> None:
    without = BLOCKED.replace("'splitzoo')", "'splitzoo', 'onnxruntime')") + RUN
    done = subprocess.run(
        [sys.executable, "-c", without, "selftest"], cwd=bundle, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "error: ONNX Runtime is not installed.\npip install onnxruntime\n"


@pytest.mark.slow
@pytest.mark.network
def test_a_fresh_environment_needs_only_the_requirements(bundle, photo, tmp_path) -> None:
    venv.create(tmp_path / "board", with_pip=True)
    python = tmp_path / "board" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", "-r", bundle / "requirements.txt"]
    done = subprocess.run(install, capture_output=True, text=True)
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not names & {*ABSENT, "huggingface-hub"}
    for words in (["selftest"], ["encode", str(photo), "-o", str(tmp_path / "photo.sz")]):
        ran = subprocess.run(
            [python, "-m", "splitrun", *words], cwd=bundle, capture_output=True, text=True
        )
        assert (ran.returncode, ran.stderr) == (0, "")


# Where streams go


def test_encode_writes_beside_the_image_or_to_a_folder(splitrun, photo, photos, tmp_path) -> None:
    image = tmp_path / "pic.jpg"
    shutil.copyfile(photo, image)
    code, out, _ = splitrun("encode", image)
    assert code == 0
    size = (tmp_path / "pic.sz").stat().st_size
    assert out == f"{tmp_path / 'pic.sz'}: {size:,} bytes\n"
    images = photos[:3]
    code, out, _ = splitrun("encode", *images, "-o", tmp_path / "streams", "--json")
    assert code == 0
    sent = json.loads(out)
    assert sent.keys() == {"streams", "errors", "engine", "beta", "peak_memory_bytes"}
    expected = [tmp_path / "streams" / f"{image.stem}.sz" for image in images]
    assert [stream["stream"] for stream in sent["streams"]] == [str(path) for path in expected]
    assert sorted((tmp_path / "streams").iterdir()) == sorted(expected)


@pytest.mark.parametrize("names", [("a/x.jpg", "b/x.jpg"), ("x.jpg", "x.png")])
def test_encode_refuses_two_images_of_one_stream_name(splitrun, photo, tmp_path, names) -> None:
    images = [tmp_path / name for name in names]
    for image in images:
        image.parent.mkdir(exist_ok=True)
        Image.open(photo).save(image)
    folder = () if names[0] == "x.jpg" else ("-o", tmp_path / "streams")
    result = splitrun("encode", *images, *folder)
    refused(result, "two images would have the same stream file")
    assert "--numbered" in result[2]
    assert [*tmp_path.rglob("*.sz")] == []
    code, _, _ = splitrun("encode", photo, photo, "--numbered", "-o", tmp_path / "streams")
    assert code == 0
    first, second = sorted((tmp_path / "streams").iterdir())
    assert (first.name, second.name) == ("0.sz", "1.sz")
    assert first.read_bytes() == second.read_bytes()


def test_encode_writes_over_no_file_of_ones_own(splitrun, photo, tmp_path) -> None:
    image = tmp_path / "photo.sz"
    shutil.copyfile(photo, image)
    assert splitrun("encode", image)[0] == 1
    refused(splitrun("encode", photo, "-o", image / "x.sz"), "Cannot write")
    assert image.read_bytes() == photo.read_bytes()


def test_encode_replaces_a_stream_by_force_alone(splitrun, photo, tmp_path) -> None:
    path = tmp_path / "photo.sz"
    assert splitrun("encode", photo, "-o", path)[0] == 0
    stream = path.read_bytes()
    path.write_bytes(b"mine")
    refused(splitrun("encode", photo, "-o", path), "a file of that name exists")
    assert path.read_bytes() == b"mine"
    code, out, _ = splitrun("encode", photo, "-o", path, "--force")
    assert (code, path.read_bytes()) == (0, stream)
    assert out == f"{path}: {len(stream):,} bytes\n"


def test_a_stream_on_standard_output_is_alone_there(tiny_bundle, photo, tmp_path) -> None:
    command = [sys.executable, "-m", "splitrun", "--bundle", tiny_bundle, "encode", photo, "-o"]
    done = subprocess.run([*command, "/dev/stdout"], capture_output=True, check=True)
    subprocess.run([*command, tmp_path / "photo.sz"], capture_output=True, check=True)
    assert done.stdout == (tmp_path / "photo.sz").read_bytes()
    assert done.stderr.startswith(b"/dev/stdout: ")


def test_encode_names_an_image_that_is_none_and_writes_nothing(splitrun, tmp_path) -> None:
    image = tmp_path / "bad.jpg"
    for content in (b"", b"no image", b"\xff\xd8\xff\xe0" + bytes(40)):
        image.write_bytes(content)
        refused(splitrun("encode", image), f"Cannot use the image {image}")
    assert list(tmp_path.iterdir()) == [image]


def test_encode_goes_on_after_an_image_that_is_none(splitrun, photo, tmp_path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    images, folder = [bad, photo, tmp_path / "missing.png"], tmp_path / "streams"
    code, out, err = splitrun("encode", *images, "-o", folder)
    (sent,) = folder.iterdir()
    assert (code, out) == (1, f"{sent}: {sent.stat().st_size:,} bytes\n")
    assert err.splitlines()[0] == "error: 2 of 3 images could not be used:"
    assert f"  Cannot use the image {bad}: it is not an image" in err
    assert "missing.png: no such file or directory." in err
    code, out, again = splitrun("encode", *images, "-o", folder, "--force", "--json")
    document = json.loads(out)
    assert (code, again) == (1, err)
    assert [one["stream"] for one in document["streams"]] == [str(sent)]
    assert [one["image"] for one in document["errors"]] == [str(bad), str(images[2])]
    code, out, _ = splitrun("encode", bad, bad, "--numbered", "-o", folder, "--json")
    assert (code, len(json.loads(out)["errors"])) == (1, 2)


def test_selftest_and_decode_print_what_was_asked_for(splitrun, stream) -> None:
    assert splitrun("selftest")[1].endswith("self-test passed\n")
    code, out, err = splitrun("decode", stream, "--top", 3)
    assert code == 0
    name, *classes = out.splitlines()
    assert name == str(stream)
    assert len(classes) == 3
    assert all("class " in line and "%" in line for line in classes)
    assert err == "The weights are random: these predictions mean nothing.\n"


def test_decode_of_json_prints_json_alone(splitrun, stream) -> None:
    code, out, err = splitrun("decode", stream, stream, "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)["outputs"]
    assert first == second
    assert [score.keys() for score in first["top"]] == [{"index", "label", "probability"}] * 5


# Streams that are none


@pytest.fixture(scope="module")
def edge(tiny_bundle):
    return Edge(open_bundle(tiny_bundle))


@pytest.fixture(scope="module")
def good(tiny_bundle):
    """The stream of the tiny bundle's record."""
    return EdgeRecord.load(open_bundle(tiny_bundle)).stream


def flipped(stream: bytes, place: int, bits: int) -> bytes:
    content = bytearray(stream)
    content[place] ^= bits
    return bytes(content)


def test_a_cut_flipped_or_longer_stream_is_refused(edge, good) -> None:
    places = (0, 1, 2, 3, 4, 7, 8, 1000, -5, -4, -1)
    damaged = [
        *(good[:kept] for kept in (0, 1, 7, 11, 12, 13, 100, -100, -4, -1)),
        *(flipped(good, place, bits) for place in places for bits in (0x01, 0x80, 0xFF)),
        good + b"\0",
    ]
    for stream in damaged:
        with pytest.raises(BitstreamError, match=r"[Tt]he stream|This is not a splitzoo stream"):
            edge.predict(stream)


def test_a_stream_of_another_model_shape_or_payload_is_refused(edge, good) -> None:
    payload, own = good[8:-4], good[4:8]
    for words, saying in (
        ((payload, b"\xde\xad\xbe\xef"), "of model deadbeef; this"),
        ((payload, own, (1, 1)), "a latent of 1×1; the edge"),
        ((payload, own, (54, 55)), "a latent of 54×55; the edge"),
        ((payload, own, (65535, 65535)), "claims 4×65535×65535"),
        ((payload, own, (1, 65535)), "a latent of 1×65535"),
        ((b"\x01", own), "payload"),
        ((b"\xff" * 5000, own), "payload"),
    ):
        with pytest.raises(BitstreamError, match=saying):
            edge.predict(write_stream(*words))


def test_a_bad_stream_after_a_good_one_is_named(splitrun, good, tmp_path) -> None:
    (tmp_path / "good.sz").write_bytes(good)
    bad = tmp_path / "bad.sz"
    bad.write_bytes(write_stream(good[8:-4], bytes(4)))
    other = tmp_path / "missing.sz"
    names = [bad, tmp_path / "good.sz", other]
    code, out, err = splitrun("decode", *names, "--json")
    document = json.loads(out)
    assert code == 1
    assert [one["stream"] for one in document["outputs"]] == [str(names[1])]
    assert [one["stream"] for one in document["errors"]] == [str(bad), str(other)]
    assert {one["error"]["kind"] for one in document["errors"]} == {"BitstreamError"}
    assert err.startswith("error: 2 of 3 streams could not be used:\n")
    assert f"  {bad}: The stream is of model 00000000" in err
    assert f"  {other}: It cannot be read: no such file" in err
    assert "Decode it with the bundle or model that wrote it." in err
    code, out, plain = splitrun("decode", *names)
    assert (code, out.splitlines()[0]) == (1, str(names[1]))
    assert plain.endswith(err)
    refused(splitrun("decode", bad), f"{bad}: The stream is of model 00000000")


def test_a_stream_that_cannot_be_read_is_named(splitrun, tmp_path) -> None:
    with (tmp_path / "huge.sz").open("wb") as file:
        file.truncate(1 << 40)  # sparse: no disk is used
    for name in ("missing.sz", "huge.sz"):
        refused(splitrun("decode", tmp_path / name), f"{tmp_path / name}: It ")
    if Path("/dev/zero").exists():  # a device without end
        refused(splitrun("decode", "/dev/zero"), "/dev/zero: It is not a file.")


# Usage


def test_wrong_usage_exits_with_2_and_help_with_0(splitrun) -> None:
    for words in (
        *((), ("bogus",), ("encode",), ("decode",), ("decode", "x.sz", "--top", "0")),
        *(("decode", "x.sz", "--top", "many"), ("bench", "--iterations", "0")),
        *(("bench", "--half", "middle"), ("selftest", "--threads", "-1")),
    ):
        code, out, err = splitrun(*words)
        assert (code, out) == (2, ""), words
        assert "usage: python -m splitrun" in err
    code, out, _ = splitrun("--help")
    assert code == 0
    assert all(command in out for command in ("encode", "decode", "selftest", "bench"))


@pytest.mark.parametrize("command", ["encode", "send", "receive", "serve"])
def test_help_loads_nothing_heavy(command) -> None:
    code = (
        "import sys, contextlib; from splitrun.cli import main\n"
        f"with contextlib.suppress(SystemExit): main(['{command}', '--help'])\n"
        "print(*{'numpy', 'PIL', 'ssl', 'onnxruntime', 'starlette'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0].startswith("usage: ")
    assert done.stdout.splitlines()[-1] == ""


def test_without_a_bundle_one_line_says_so(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["selftest"]) == 2
    captured = capsys.readouterr()
    assert captured == ("", "error: There is no bundle here: name its folder with --bundle.\n")


# Interrupted


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_bench_ends_without_a_traceback(tiny_bundle, signal_number) -> None:
    words = [sys.executable, "-c", ANNOUNCED + RUN, "bench", "--iterations", "1000000"]
    process = subprocess.Popen(
        words, cwd=tiny_bundle, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()  # the imports are done
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (128 + signal_number, -signal_number)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_a_runtime_stopped_while_it_starts_ends_without_a_traceback(tiny_bundle, tmp_path) -> None:
    # A board takes seconds to import numpy and ONNX Runtime: Ctrl-C often falls there.
    (tmp_path / "numpy.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "splitrun", "selftest"],
        cwd=tiny_bundle,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


# Says when it has begun, so that the signal does not come before Python is ready for it.
ANNOUNCED = """
import runpy, sys
import splitrun.bench as bench
measure = bench.measure_steps

def announced(*args, **kwargs):
    print("measuring", flush=True)
    return measure(*args, **kwargs)

bench.measure_steps = announced
"""


def test_the_engine_reports_to_nobody(tiny_bundle, monkeypatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    Device(open_bundle(tiny_bundle))
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
