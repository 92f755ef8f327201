"""Commands that encode choose a level of rate: of a model or bundle, calibrated, on any target."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import refused
from edge_servers import EdgeServer
from made_data import CLASSES, make_folders

from splitrun import Device, open_bundle
from splitrun.cli import main
from splitrun.errors import BitstreamError
from splitrun.halves import Edge
from splitzoo import export, zoo
from splitzoo.zoo.bottleneck_specs import VariableRateBottleneck

SIZES = {
    "network": "residual",
    "layer": "layer2",
    "stride": 8,
    "encoder_channels": (48, 8, 4),
    "decoder_channels": (16, 16, 48),
}
BETAS = (0.1, 0.2, 0.4)


def build():
    spec = zoo.get_spec("svbi_test_resnet-fp-variable")
    levels = VariableRateBottleneck(**SIZES, betas=BETAS, beta=0.2)
    classes = {"dataset": "custom", "num_classes": len(CLASSES), "labels": CLASSES}
    changes = {"name": "tiny-variable", "bottleneck": levels, **classes}
    return zoo.build(spec.model_copy(update=changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return zoo.save(build(), tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def variable(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variable") / "bundle"
    export.split(saved, folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("images"), train=8, val=2)


def splitrun(capsys, bundle: Path, *words: object) -> tuple[int, str, str]:
    code = main(["--bundle", str(bundle), *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_board_encodes_at_each_level_and_the_edge_is_not_told(variable, photo, tmp_path, capsys):
    manifest = json.loads((variable / "manifest.json").read_text())
    assert manifest["coding"]["settings"] == {"level": 1}
    assert manifest["spec"]["bottleneck"]["beta"] == 0.2
    code, out, _ = splitrun(capsys, variable, "info")
    assert (code, out.splitlines()[-1]) == (0, "β         0.1, 0.2, 0.4; 0.2 where none is chosen")
    _, out, _ = splitrun(capsys, variable, "info", "--json")
    assert (json.loads(out)["betas"], json.loads(out)["beta"]) == ([0.1, 0.2, 0.4], 0.2)
    device, sizes = Device(open_bundle(variable)), {}
    model = build()
    image = model.spec.preprocessing.load(photo)
    for beta in (None, *BETAS):
        path = tmp_path / f"{beta}.sz"
        words = ("encode", photo, "-o", path, "--json", *(() if beta is None else ("--beta", beta)))
        code, out, _ = splitrun(capsys, variable, *words)
        assert (code, json.loads(out)["beta"]) == (0, beta or 0.2)
        stream = path.read_bytes()
        assert device.encode_image(photo, beta=beta) == stream
        # PyTorch rounds a value at a boundary the other way, now and then.
        assert len(stream) == pytest.approx(len(model.compress(image, beta=beta)[0]), abs=8)
        assert splitrun(capsys, variable, "decode", path)[0] == 0
        sizes[beta] = len(stream)
    assert sizes[None] == sizes[0.2]
    assert sizes[0.1] > sizes[0.2] > sizes[0.4]
    assert splitrun(capsys, variable, "selftest")[0] == 0


def test_a_level_that_there_is_not_is_refused_before_anything_is_written(
    variable, tiny_bundle, photo, tmp_path, capsys
):
    to = ("-o", tmp_path / "x.sz")
    levels = "Its levels are: 0.1, 0.2, 0.4"
    found = splitrun(capsys, variable, "encode", photo, "--beta", 0.5, *to)
    refused(found, "β 0.5 is outside the model's range, 0.1 to 0.4", levels)
    found = splitrun(capsys, tiny_bundle, "encode", photo, "--beta", 0.2, *to)
    refused(found, "rate is fixed: it cannot encode with β 0.2", "its name ends in -variable")
    found = splitrun(capsys, tiny_bundle, "bench", "--half", "device", "--beta", 0.2)
    refused(found, "rate is fixed")
    for text in ("0", "-1", "nan", "inf", "much"):
        with pytest.raises(SystemExit) as caught:
            splitrun(capsys, variable, "encode", photo, "--beta", text, *to)
        assert caught.value.code == 2
    assert not (tmp_path / "x.sz").exists()


def test_a_board_sends_at_a_level(variable, tiny_bundle, photo, tmp_path):
    """As programs of their own, as a spool is of the process that sends."""
    device = Device(open_bundle(variable))
    with EdgeServer() as server:

        def send(bundle: Path, beta: float) -> tuple[int, str, str]:
            words = ("--bundle", bundle, "send", "--to", server.url, "--spool", tmp_path / "spool")
            command = [sys.executable, "-m", "splitrun", *words, "--beta", beta, photo]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr

        for beta in (0.1, 0.4):
            code, out, err = send(variable, beta)
            assert (code, "answer" in json.loads(out)) == (0, True), err
        refused(send(variable, 0.5), "β 0.5 is outside the model's range, 0.1 to 0.4")
        refused(send(tiny_bundle, 0.4), "rate is fixed")
    sent = [request.body for request in server.requests]
    assert sent == [device.encode_image(photo, beta=beta) for beta in (0.1, 0.4)]
    assert not list((tmp_path / "spool").glob("*.item"))


def test_a_hostile_level_in_a_stream_is_an_error_of_ours(variable, photo):
    device, edge = Device(open_bundle(variable)), Edge(open_bundle(variable))
    payload, height, width = edge.codec.unframe(device.encode_image(photo))
    for level in (3, 255):
        stream = edge.codec.frame(bytes([level]) + payload[1:], (height, width))
        with pytest.raises(BitstreamError, match=f"names level {level}"):
            edge.predict(stream)
    with pytest.raises(BitstreamError, match="names no level"):
        edge.predict(edge.codec.frame(b"", (height, width)))


def test_commands_of_splitzoo_choose_too(variable, saved, tiny_bundle, images, photo, splitzoo):
    sent = {}
    for subject in (variable, saved):
        for beta in BETAS:
            words = ("--data", images, "--beta", beta, "--json")
            code, out, err = splitzoo("profile", "accuracy", subject, *words)
            assert code == 0, err
            report = json.loads(out)
            assert report["spec"]["bottleneck"]["beta"] == beta
            sent[subject, beta] = report["stream_bytes"]["mean"]
        assert sent[subject, 0.1] > sent[subject, 0.2] > sent[subject, 0.4]
    code, out, _ = splitzoo("export", "run", variable, photo, "--beta", 0.4, "--json")
    (run,) = json.loads(out)
    device = Device(open_bundle(variable))
    assert (code, run["stream_bytes"]) == (0, len(device.encode_image(photo, beta=0.4)))
    folder = images / "train" / "bars"
    few = ("--images", folder, "--iterations", 1, "--warmup", 0, "--json")
    rates = {}
    for beta in (0.1, 0.4):
        code, out, err = splitzoo("profile", "encoder", variable, "--beta", beta, *few)
        assert code == 0, err
        rates[beta] = json.loads(out)["rate"]["stream_bytes"]["mean"]
    assert rates[0.1] > rates[0.4]
    for words in (
        ("profile", "accuracy", variable, "--data", images, "--beta", 0.5),
        ("profile", "encoder", variable, "--beta", 0.5),
        ("export", "run", variable, photo, "--beta", 0.5),
    ):
        refused(splitzoo(*words), "outside the model's range")
    refused(splitzoo("export", "run", tiny_bundle, photo, "--beta", 0.4), "rate is fixed")


def test_calibration_fits_every_level(saved, images, tmp_path, capsys, photo):
    model, before = zoo.load(saved), {}
    image = model.spec.preprocessing.load(photo)
    before = {beta: model.compress(image, beta=beta) for beta in BETAS}
    outputs = {beta: model.decompress(streams) for beta, streams in before.items()}
    done = zoo.calibrate(model, images / "train")
    assert done.record.kind in ("variable-rate", "variable-rate-context")
    again = zoo.load(zoo.save(model, tmp_path / "calibrated"))
    for beta in BETAS:
        streams = again.compress(image, beta=beta)
        assert streams == again.at(beta).compress(image)
        assert len(streams[0]) < len(before[beta][0])
        assert (again.decompress(streams) == outputs[beta]).all()  # the same latents
    assert again.codec.coder.beta == 0.2
    export.split(again, tmp_path / "bundle")
    assert splitrun(capsys, tmp_path / "bundle", "selftest")[0] == 0
    coder = open_bundle(tmp_path / "bundle").codec().coder
    assert (coder.kind, coder.betas, coder.beta) == (done.record.kind, BETAS, 0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"target": "openvino"},
        {"target": "jetson", "edge": "tensorrt"},
        {"target": "jetson", "precision": "fp16"},
    ],
    ids=str,
)
def test_other_targets_and_precisions(saved, options, tmp_path, photo, capsys):
    if options.get("target") == "openvino":
        pytest.importorskip("openvino")
    folder = tmp_path / "bundle"
    export.split(saved, folder, **options)
    sizes = []
    for beta in BETAS:
        words = ("--beta", beta, "-o", folder / ".." / f"{beta}.sz", "--stand-in", "--json")
        code, out, err = splitrun(capsys, folder, "encode", photo, *words)
        assert code == 0, err
        sizes.append(json.loads(out)["streams"][0]["stream_bytes"])
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    assert splitrun(capsys, folder, "selftest", "--stand-in")[0] == 0


def test_a_link_is_measured_at_a_level(variable, tiny_bundle, splitzoo, photo, tmp_path):
    (tmp_path / photo.name).write_bytes(photo.read_bytes())
    words = ["profile", "link", "--images", tmp_path, "--link", "wifi", "--json", "--beta"]
    sizes = {beta: len(Device(open_bundle(variable)).encode_image(photo, beta)) for beta in BETAS}
    assert sizes[0.1] != sizes[0.4]
    for beta in (0.1, 0.4):
        code, out, err = splitzoo(*words, beta, variable)
        assert code == 0, err
        report = json.loads(out)
        assert (report["beta"], report["ways"][0]["bytes_mean"]) == (beta, sizes[beta])
    refused(splitzoo(*words, 0.4, tiny_bundle), "rate is fixed")
