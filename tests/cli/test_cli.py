"""Every command but export as a user meets it: what it prints, writes and refuses."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from commands import disk_of, finish, refused
from names_of_models import RESNET
from PIL import Image

from splitzoo import zoo
from splitzoo.profile.report import EncoderProfile
from splitzoo.zoo.packaged import packaged

QUICK = ("--warmup", "0", "--iterations", "2", "--threads", "2")


# Usage, names and weights

UNKNOWN_MODEL = "splitable_resnet50-fp-beta0.08"
SEED_ALONE = "--seed goes with --random-weights."


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (("bogus",), "No such command"),
        (("--bogus",), "No such option"),
        (("zoo", "bogus"), "No such command"),
        (("zoo", "list", "--bogus"), "No such option"),
        (("export", "run", "bundle"), "Missing argument"),
        (("export", "verify"), "Missing argument"),
        (("export", "split", "--seed", "3"), SEED_ALONE),
        (("export", "split", "--random-weights", "--seed", "-1"), "--seed"),
        (("profile", "encoder", "--seed", "3"), SEED_ALONE),
        (("profile", "encoder", "--random-weights", "--iterations", "0"), "--iterations"),
        (("demo", "--seed", "3"), SEED_ALONE),
        (("cards", "show"), "Missing argument"),
    ],
    ids=str,
)
def test_wrong_usage_exits_with_2(splitzoo, tmp_path, monkeypatch, words, saying) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = splitzoo(*words)
    assert (code, out) == (2, "")
    assert "Usage: " in err
    assert saying in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sayings"),
    [
        *(
            (
                words,
                [
                    *(f"No model is named '{UNKNOWN_MODEL}'.", "splitzoo zoo list"),
                    "Did you mean splittable_resnet50-fp-beta0.08 or ",
                ],
            )
            for words in (
                ("zoo", "show", UNKNOWN_MODEL),
                ("export", "split", UNKNOWN_MODEL, "--random-weights"),
                ("profile", "encoder", UNKNOWN_MODEL, "--random-weights"),
                ("cards", "build", UNKNOWN_MODEL),
                ("cards", "show", UNKNOWN_MODEL),
            )
        ),
        (
            ("export", "split", "--random-weights", "--target", "cpuu"),
            ["No target is named 'cpuu'.", "Did you mean cpu?"],
        ),
        (
            ("profile", "encoder", "--random-weights", "--device", "cpuu"),
            ["No device is named 'cpuu'.", "Did you mean cpu?"],
        ),
        (("zoo", "show", "./nowhere/model"), ["No model folder is named './nowhere/model'"]),
        (("zoo", "show", "no/where/model"), ["No model folder is named 'no/where/model'"]),
    ],
    ids=str,
)
def test_an_unknown_name_is_answered_with_close_ones(
    splitzoo, tmp_path, monkeypatch, words, sayings
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(splitzoo(*words), *sayings)
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_or_repositories_say_what_to_do(
    splitzoo, hub, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("export", "split"), ("profile", "encoder"), ("profile", "accuracy")):
        data = ("--data", ".") if "accuracy" in words else ()
        refused(splitzoo(*words, RESNET, *data), f"No weights for {RESNET}", "--random-weights")
    assert list(tmp_path.iterdir()) == []
    refused(splitzoo("zoo", "show", "nowhere/model"), "nowhere/model: there is no such repository")
    assert hub.seen()


# zoo


def test_zoo_list_has_a_line_or_a_spec_for_each_model(splitzoo, monkeypatch) -> None:
    specs = [*map(zoo.get_spec, zoo.list_models())]
    code, out, _ = splitzoo("zoo", "list", "--json")
    assert code == 0
    listed = json.loads(out)
    assert [zoo.ModelSpec.model_validate(model["spec"]) for model in listed] == specs
    monkeypatch.delenv("COLUMNS", raising=False)  # a table in a pipe
    _, out, _ = splitzoo("zoo", "list")
    _header, _rule, *lines = (line.split() for line in out.splitlines() if line.strip())
    for words, spec, model in zip(lines, specs, listed, strict=True):
        assert " ".join(words).startswith(f"{spec.name} {spec.task} {spec.method} {spec.strength} ")
        assert (words[-1] == "here") == model["weights_at_hand"]
        assert f"{model['encoder_bits']:,}" in words


@pytest.mark.parametrize("columns", [30, 60, 80, 120, 200])
def test_zoo_list_cuts_nothing_however_narrow_the_terminal(splitzoo, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = splitzoo("zoo", "list", "*regnet*")
    assert code == 0
    assert "…" not in out
    told = " ".join(out.split())
    for spec in map(zoo.get_spec, zoo.list_models("*regnet*")):
        assert spec.name in out
        for word in (spec.task, spec.method, *spec.strength.split()):
            assert word in told
    # By benchmarks/results/flowers, and 24,792 parameters of 32 bits.
    for figure in ("77.99%", "605", "84,985", f"{32 * 24_792:,}", "here"):
        assert figure in told
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = " ".join(splitzoo("zoo", "show", "flowers-splittable_regnetx_002-fp-beta3")[1].split())
    for saying in ("top-1 77.99%, 605 bytes per image; 736 images of val/", "on this machine"):
        assert saying in shown
    assert "793,344 bits" in shown


def test_zoo_list_takes_a_pattern(splitzoo) -> None:
    _, out, _ = splitzoo("zoo", "list", "splittable_resnet50-*beta5*", "--json")
    (found,) = json.loads(out)
    assert found["spec"]["name"] == "splittable_resnet50-fp-beta5.12"
    # 3·96·25 + 96·48·25 + 48·24·4 of the convolutions, 96² + 96 + 48² + 48 of GDN, of 32 bits.
    assert found["encoder_bits"] == 32 * 138_672
    assert (found["weights_at_hand"], found["measured"]) == (False, None)
    code, out, err = splitzoo("zoo", "list", "mobilenet", "--json")
    assert (code, out) == (0, "[]\n")
    assert "splitzoo zoo list" in err


@pytest.mark.parametrize(
    "filters",
    [
        *({"task": "object-detection"}, {"method": "end-to-end"}, {"backbone": "regnet"}),
        *({"beta": 1.024e-7}, {"task": "semantic-segmentation", "beta": 0.16}),
    ],
    ids=str,
)
def test_zoo_list_takes_filters(splitzoo, filters) -> None:
    options = [word for name, value in filters.items() for word in (f"--{name}", value)]
    code, out, _ = splitzoo("zoo", "list", *options, "--json")
    names = [model["spec"]["name"] for model in json.loads(out)]
    assert (code, names) == (0, zoo.list_models(**filters))
    assert 0 < len(names) < len(zoo.list_models())


def test_zoo_list_of_what_is_at_hand_makes_no_request(splitzoo, hub) -> None:
    code, out, _ = splitzoo("zoo", "list", "--pretrained")
    assert code == 0
    assert [name for name in packaged() if name in out] == list(packaged())
    assert RESNET not in out
    assert splitzoo("zoo", "list", RESNET, "--pretrained")[2].startswith("No model matches.")
    assert hub.seen() == []


def parameters(module) -> int:
    return sum(tensor.numel() for tensor in module.parameters())


def test_zoo_show_of_a_name_and_of_a_folder(splitzoo, model, tiny_model, tiny_folder) -> None:
    code, out, err = splitzoo("zoo", "show", RESNET)
    assert (code, err) == (0, "")
    assert re.search(r"on the wire +symbols 24×55×55 int32", out)
    assert re.search(r"backbone +resnet50, cut after layer1", out)
    assert "138,672 parameters" in out
    assert f"{parameters(model.decoder):,} parameters" in " ".join(out.split())
    code, out, _ = splitzoo("zoo", "show", tiny_folder, "--json")
    assert code == 0
    shown = json.loads(out)
    assert zoo.ModelSpec.model_validate(shown.pop("spec")) == tiny_model.spec
    assert shown == {
        "wire": [{"name": "symbols", "dtype": "int32", "shape": [4, 55, 55]}],
        "device_parameters": parameters(tiny_model.encoder),
        "edge_parameters": parameters(tiny_model.decoder),
        "encoder_bits": 32 * parameters(tiny_model.encoder),
        "weights_at_hand": True,
        "measured": None,
    }


@pytest.mark.parametrize(
    ("name", "sayings"),
    [
        (
            "faster_rcnn_splittable_resnet50-mshp-beta0.16",
            [
                *("latent 24×199×335 float32", "hyper_symbols 16×50×84 int32", "91 classes"),
                "mean-scale-hyperprior bottleneck, β 0.16",
            ],
        ),
        (
            "splittable_resnet50-bq3ch",
            ["values 3×60×60 uint8", "scale 1×1×1 float32", "3 ch", "resnet50-bq3ch_from_resnet50"],
        ),
        ("resnet50-vtm-q63", ["pixels 3×224×224 uint8", "cut in front of it", "quality 63"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_zoo_show_says_what_crosses_the_link(splitzoo, name, sayings) -> None:
    code, out, err = splitzoo("zoo", "show", name)
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    for saying in sayings:
        assert saying in words


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


# profile


def test_profile_of_a_model_as_tables_and_report(
    splitzoo, tiny_folder, photo, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, "tiny")
    images = tmp_path / "my photos"
    images.mkdir()
    shutil.copyfile(photo, images / "one.jpg")
    report = tmp_path / "new" / "report.json"
    words = ["profile", "encoder", "./tiny", "--random-weights", "--seed", "4", *QUICK]
    words += ["--images", "my photos", "-o"]
    code, out, err = splitzoo(*words, report)
    assert code == 0
    saved = EncoderProfile.model_validate_json(report.read_text())
    assert (saved.subject, saved.weights, saved.seed) == ("model", "random", 4)
    # A shell repeats it.
    assert shlex.split(saved.command) == ["splitzoo", *words, str(report)]
    assert saved.rate is not None
    assert saved.rate.count == 1
    assert re.search(r"weights +random, seed 4", out)
    assert f"{saved.size.encoder_bits:,} bits" in out
    assert f"{saved.compute.macs:,} MACs" in out
    assert f"{saved.edge_compute.macs:,} MACs" in out
    assert "at least" not in out
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
    code, out, err = splitzoo("profile", "encoder", tiny_bundle, "--random-weights")
    assert (code, out) == (2, "")
    assert "a bundle has its own weights" in err


def test_profile_of_a_folder_without_images(splitzoo, tiny_folder, tmp_path) -> None:
    words = ("profile", "encoder", tiny_folder, "--random-weights", "--images", tmp_path)
    refused(splitzoo(*words), f"Cannot use the image {tmp_path}: ")


# cards


def test_cards_build_prints_the_path_of_the_card_and_show_reads_it(splitzoo, tmp_path) -> None:
    folder = tmp_path / "card"
    code, out, err = splitzoo("cards", "build", "-o", folder)
    assert (code, out) == (0, f"{folder / 'README.md'}\n")
    assert "Size and latency are missing: splitzoo profile encoder" in err
    assert "Parity and hashes are missing. Make a bundle: splitzoo export split" in err
    names = [path.name for path in folder.iterdir()]
    assert sorted(names) == ["README.md", "card.json", "split-dark.svg", "split.svg"]
    asked = (folder / "README.md", folder, zoo.DEFAULT_MODEL)
    shown = [splitzoo("cards", "show", what)[:2] for what in asked]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0][0] == 0
    assert "image-classification" in shown[0][1]
    assert zoo.DEFAULT_MODEL in shown[0][1]
    before = (folder / "README.md").read_bytes()
    refused(splitzoo("cards", "build", "-o", folder), "exists and is not empty")
    assert (folder / "README.md").read_bytes() == before


def test_cards_build_of_a_report_that_is_not_there(splitzoo, tmp_path) -> None:
    missing = tmp_path / "missing.json"
    result = splitzoo("cards", "build", "--profile", missing, "-o", tmp_path / "card")
    refused(result, f"Cannot read {missing}", "splitzoo profile encoder -o report.json")
    assert list(tmp_path.iterdir()) == []


def test_cards_show_of_a_damaged_card(splitzoo, tmp_path) -> None:
    path = tmp_path / "README.md"
    for content in (b"---\nkey: [\n---\n", b"\xff\xfe"):
        path.write_bytes(content)
        refused(splitzoo("cards", "show", path), "card")


# demo


@pytest.mark.slow
def test_demo_goes_from_model_to_card(tmp_path) -> None:
    image = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    folder = tmp_path / "out"
    code, out, err = finish("demo", "--random-weights", "--image", image, "-o", folder)
    assert code == 0, err
    for row in ("model", "device ms", "edge ms", "encoder bits", "MACs", "parity"):
        assert re.search(rf"^ *{row} +\S", out, re.MULTILINE)
    assert re.search(r"^ *noise\.png +\S.* [\d.]+% +[\d,]+", out, re.MULTILINE)
    for name in ("bundle", "profile.json", "card/README.md", "images"):
        assert (folder / name).exists()
        assert f"{folder}/{name}" in out
    assert (folder / "images" / "noise.png").exists()
    assert "The weights are random" in err

    profile = EncoderProfile.model_validate_json((folder / "profile.json").read_text())
    assert profile.rate is not None
    # The card says by which command its numbers were measured: on photos, as they were.
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
    monkeypatch.setattr("splitzoo.zoo.resolve.DEFAULT_MODEL", str(tiny_folder))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    words = ("demo", "--random-weights", "--image", bad, "-o", tmp_path / "out")
    refused(splitzoo(*words), f"Cannot use the image {bad}: ")
    assert list(tmp_path.iterdir()) == [bad]


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    splitzoo, tiny_bundle, tmp_path, monkeypatch
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"mine")
    monkeypatch.setattr("splitzoo.profile.measure.profile_bundle", pytest.fail)
    words = ("profile", "encoder", tiny_bundle, "-o")
    refused(splitzoo(*words, photo), "a file of that name exists", "--force")
    refused(splitzoo(*words, photo / "report.json"), "Cannot write")
    assert photo.read_bytes() == b"mine"


def test_the_encoder_of_a_bundle_of_an_impossible_model_is_refused(
    splitzoo, tiny_bundle, tmp_path
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["spec"]["backbone"] = "vit_tiny_patch16_224"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(splitzoo("profile", "encoder", folder, "--iterations", "1"), "cannot be built")
