"""Cards are computed again: those that the package carries agree, and no change stays unseen."""

import json
import shutil
from pathlib import Path

import pytest
from board import on_board
from made_data import made_image

from splitrun.errors import ReportError
from splitzoo import cards, profile
from splitzoo.cards import verification
from splitzoo.cards.record import CardRecord, read_record
from splitzoo.cards.writing import write_card
from splitzoo.zoo.packaged import packaged

MODEL = "flowers-splittable_regnetx_002-fp-beta3"
GENERATED = Path(__file__).parents[2] / "cards" / "generated"
COMPUTED = verification._computed


@pytest.mark.parametrize("name", packaged())
def test_the_carried_cards_are_right(name) -> None:
    found = cards.verify(GENERATED / name, bundle=False)
    assert found.differences == ()
    same = {one.name for one in found.checks if one.verdict == "same"}
    assert {"accuracy.encoder_bits", "bundle.model_sha256", "bundle.device_sha256"} <= same
    assert {"profile.device_macs", "profile.edge_macs", "profile.edge_flops"} <= same


@pytest.fixture(scope="module")
def computed() -> dict:
    """What this machine computes of a carried model."""
    facts = read_record(GENERATED / MODEL).facts()
    return dict(COMPUTED(facts, GENERATED, None, False, verification.SILENT))


@pytest.fixture
def copied(tmp_path, monkeypatch, computed) -> Path:
    """A copy of a carried model's card, to change; nothing is computed anew."""
    monkeypatch.setattr(verification, "_computed", lambda *_: computed.items())
    return shutil.copytree(GENERATED / MODEL, tmp_path / "card")


def differences(folder: Path) -> dict:
    found = cards.verify(folder, bundle=False).differences
    return {one.name: (one.card, one.here) for one in found}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| top-1 | 77.99% |", "| top-1 | 78.99% |"),
        ("value: 0.779891", "value: 0.879891"),
        ("| stream (what is sent) | 605 |", "| stream (what is sent) | 505 |"),
        ("| total | 3.568 |", "| total | 1.568 |"),
        ("in 23 minutes", "in 3 minutes"),
    ],
)
def test_a_number_edited_on_the_card_is_found(copied, old, new) -> None:
    card = copied / "README.md"
    text = card.read_text()
    assert text.count(old) == 1
    card.write_text(text.replace(old, new))
    line = text[: text.index(old)].count("\n") + 1
    ((name, (said, right)),) = differences(copied).items()
    assert name == f"README.md, line {line}"
    assert new in said
    assert old in right


@pytest.mark.parametrize(
    "name",
    ["accuracy.top1", "profile.device_macs", "profile.total.p50_ms", "bundle.tables.npz"],
)
def test_a_figure_edited_in_the_record_is_found(copied, name) -> None:
    path = copied / "card.json"
    record = json.loads(path.read_text())
    (figure,) = [one for one in record["figures"] if one["name"] == name]
    right = figure["value"]
    figure["value"] = "0" * 64 if isinstance(right, str) else right + 1
    path.write_text(json.dumps(record))
    found = differences(copied)
    assert found[f"card.json: {name}"] == (figure["value"], right)


@pytest.mark.parametrize(
    ("document", "path", "figure"),
    [
        ("profile", ("size", "encoder_bits"), "profile.encoder_bits"),
        ("profile", ("size", "parameters"), "profile.parameters"),
        ("profile", ("compute", "macs"), "profile.device_macs"),
        ("profile", ("edge_compute", "flops"), "profile.edge_flops"),
        ("accuracy", ("encoder", "encoder_bits"), "accuracy.encoder_bits"),
        ("manifest", ("provenance", "device_sha256"), "bundle.device_sha256"),
    ],
)
def test_a_figure_edited_everywhere_is_computed_again(copied, document, path, figure) -> None:
    """A forger who changes document, record and card alike is found by the weights."""
    content = json.loads((copied / "card.json").read_text())
    place = content[document]
    for key in path[:-1]:
        place = place[key]
    right = place[path[-1]]
    place[path[-1]] = forged = "0" * 64 if isinstance(right, str) else right + 8
    facts = CardRecord.model_validate(content).facts()
    (copied / "card.json").write_text(CardRecord.of(facts).to_json())
    (copied / "README.md").write_text(str(cards.render(facts)))
    assert differences(copied) == {figure: (forged, right)}


def test_accuracy_and_bytes_are_measured_again_where_the_data_are(tmp_path, splitzoo) -> None:
    data = tmp_path / "val"
    for label, kind in (("daisy", "discs"), ("tulips", "bars")):
        (data / label).mkdir(parents=True)
        for number in range(2):
            made_image(kind, number).save(data / label / f"{number}.png")
    report = profile.accuracy(MODEL, data, command="splitzoo …")
    report.save(tmp_path / "accuracy.json")
    folder = tmp_path / "card"
    cards.build(folder, MODEL, accuracy=tmp_path / "accuracy.json")
    code, out, err = splitzoo("cards", "verify", folder, "--data", data)
    assert (code, "Nothing differs." in err) == (0, True)
    row = next(line for line in out.splitlines() if "accuracy.top1 " in line)
    assert row.split() == ["accuracy.top1", f"{report.score:.6g}", f"{report.score:.6g}", "same"]

    content = json.loads((folder / "card.json").read_text())
    content["accuracy"]["scores"]["top1"] = forged = abs(report.score - 0.25)
    content["accuracy"]["stream_bytes"]["mean"] += 20
    write_card(CardRecord.model_validate(content).facts(), folder)
    code, out, err = splitzoo("cards", "verify", folder, "--data", data, "--json")
    assert code == 3
    (document,) = json.loads(out)
    differing = {one["name"]: one for one in document["checks"] if one["verdict"] == "differs"}
    assert set(differing) == {"accuracy.top1", "accuracy.stream_bytes.mean"}
    assert differing["accuracy.top1"]["card"] == forged
    assert differing["accuracy.top1"]["here"] == report.score
    assert "2 numbers or lines differ" in err

    (data / "daisy" / "2.png").write_bytes((data / "daisy" / "1.png").read_bytes())
    with pytest.raises(ReportError, match="holds other images than"):
        cards.verify(folder, data=data)


@pytest.mark.slow  # exports a bundle
def test_files_are_exported_again_and_compared(copied, monkeypatch) -> None:
    monkeypatch.undo()
    found = cards.verify(copied)
    assert found.differences == ()
    verdicts = {one.name: one.verdict for one in found.checks}
    assert verdicts["profile.total.p50_ms"] == "beside"
    assert verdicts["bundle.tables.npz"] in ("same", "not checked")  # of other versions


def test_what_is_no_card_is_one_message(copied, tmp_path, splitzoo) -> None:
    def refused(message: str, folder: Path | str = copied) -> None:
        code, _, err = splitzoo("cards", "verify", folder)
        assert code == 1
        assert message in err

    refused("No model folder is named", tmp_path / "nothing")
    refused("neither a card nor a repository", MODEL)
    record = json.loads((copied / "card.json").read_text())
    other = json.loads(
        (GENERATED / "flowers-splittable_regnetx_002-fp-beta8/card.json").read_text()
    )
    for changes, message in (
        ({"profile": other["profile"]}, "A card describes one model, but"),
        ({"figures": [*record["figures"], record["figures"][0]]}, "is there twice"),
        ({"schema_version": 9}, "pip install --upgrade splitzoo"),
        ({"model": "other"}, "card.json is of other, but its sources of"),
    ):
        (copied / "card.json").write_text(json.dumps(record | changes))
        refused(message)
    other["accuracy"]["spec"] = record["accuracy"]["spec"]
    (copied / "card.json").write_text(json.dumps(record | {"accuracy": other["accuracy"]}))
    refused("holds other weights")
    (copied / "card.json").write_text("{")
    refused("card.json is no valid record of a card")
    (copied / "card.json").unlink()
    refused("holds no card.json")


# Machines


@pytest.fixture
def bench(tiny_bundle, tmp_path) -> Path:
    """What a board measured of the tiny bundle."""
    path = tmp_path / "bench.json"
    path.write_text(on_board(tiny_bundle, "bench", "--json", "--iterations=2").stdout)
    return path


def test_what_a_machine_measured_stands_on_the_card(tiny_bundle, bench, tmp_path, splitzoo) -> None:
    folder = tmp_path / "card"
    cards.build(folder, bundle=tiny_bundle)
    for _ in range(2):  # what is measured again replaces what was
        assert splitzoo("cards", "add-measurement", folder, bench)[0] == 0
    text = (folder / "README.md").read_text()
    for half in json.loads(bench.read_text()):
        times = half["latency"]["total"]
        row = " | ".join(f"{times[part]:.3f}" for part in ("p50_ms", "p90_ms", "p99_ms"))
        assert text.count(f"| {half['half']} | all steps | {row} |") == 1
    code, _, err = splitzoo("cards", "add-measurement", GENERATED / MODEL, bench)
    assert code == 1
    assert "was measured of tiny" in err
    bench.write_text('{"graphs": 1}')
    code, _, err = splitzoo("cards", "add-measurement", folder, bench)
    assert (code, "holds no measurement of a bundle" in err) == (1, True)


def test_engines_of_a_board_stand_on_the_card(jetson_bundle, tmp_path) -> None:
    folder = tmp_path / "card"
    cards.build(folder, bundle=jetson_bundle)
    manifest = json.loads((jetson_bundle / "manifest.json").read_text())
    times = {"p50_ms": 1.25, "p90_ms": 1.5, "p99_ms": 2.0, "mean_ms": 1.3}
    file = "device/encoder.onnx"
    key = {"tensorrt": "10.3.0", "capability": "8.7", "gpu": "Orin|<b>", "jetpack": "L4T 36.4.3"}
    entry = {"key": key | {"onnx_sha256": manifest["files"][file]}, "latency": times}
    document = {"graphs": {file: entry}, "environment": {}, "power": "NV Power Mode: 15W"}
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(document))
    cards.add_measurement(folder, path)
    text = (folder / "README.md").read_text()
    assert "TensorRT 10.3.0, fp32 | device | the graph | 1.250 | 1.500 | 2.000 |" in text
    assert "Orin&#124;&#60;b&#62;, L4T 36.4.3, NV Power Mode: 15W" in text
    entry["key"]["onnx_sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(ReportError, match="of an engine built from another"):
        cards.add_measurement(folder, path)
