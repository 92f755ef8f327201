"""Cards are made of sources that fit, written whole or not at all, and read as they were."""

import json
from pathlib import Path

import pytest
from names_of_models import RESNET

from splitrun.errors import BundleError, OutputError, ReportError, UnknownNameError
from splitzoo import cards


def test_a_profile_of_another_model_is_refused(report) -> None:
    with pytest.raises(ReportError, match="describes one model, but the model is splittable_"):
        cards.gather(RESNET, profile=report)


def test_a_profile_of_other_weights_is_refused(tiny_bundle, report, tmp_path) -> None:
    other = json.loads(report.read_text()) | {"model_id": "deadbeef"}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    with pytest.raises(
        ReportError, match=r"other weights \(\w{8}\) than .* \(deadbeef\)"
    ) as caught:
        cards.gather(bundle=tiny_bundle, profile=path)
    assert caught.value.next_step.startswith("Measure the bundle: splitzoo profile encoder ")


def test_a_profile_of_other_sizes_under_one_name_is_refused(tiny_bundle, report, tmp_path) -> None:
    content = json.loads(report.read_text())
    content["spec"]["bottleneck"]["encoder_channels"] = [96, 48, 24]
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ReportError, match="but the bundle is tiny, the profile is tiny"):
        cards.gather(bundle=tiny_bundle, profile=path)


def test_sources_that_cannot_be_read_are_errors(tmp_path) -> None:
    with pytest.raises(ReportError, match="Cannot read"):
        cards.gather(profile=tmp_path / "missing.json")
    with pytest.raises(BundleError, match="is not a bundle"):
        cards.gather(bundle=tmp_path)
    with pytest.raises(UnknownNameError):
        cards.gather("resnet50")


def test_a_card_that_cannot_be_built_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(BundleError):
        cards.build(tmp_path / "card", bundle=tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_left_alone(tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        cards.build(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_built_card_is_read_as_it_was_rendered(card_path, tiny_bundle, report) -> None:
    rendered = cards.render(cards.gather(bundle=tiny_bundle, profile=report))
    assert str(cards.read(card_path)) == str(rendered)


@pytest.mark.parametrize("content", [b"---\nkey: [\n---\n", b"\xff\xfe"])
def test_a_damaged_card_is_refused(tmp_path, content) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    with pytest.raises(ReportError, match="Cannot read the card"):
        cards.read(path)


def test_cards_that_the_repository_carries_can_be_read() -> None:
    generated = Path(__file__).parents[2] / "cards" / "generated"
    for path in generated.rglob("README.md"):
        assert cards.read(path).data.library_name == "splitzoo"


def test_show_tells_what_was_measured_in_words(splitzoo) -> None:
    generated = Path(__file__).parents[2] / "cards" / "generated"
    name = "flowers-splittable_regnetx_002-fp-beta3"
    code, out, _ = splitzoo("cards", "show", generated / name)
    assert code == 0
    assert "{'" not in out
    rows = [line.split() for line in out.splitlines()]
    # As the report says: benchmarks/results/flowers.
    assert ["top-1", "0.779891,", "val,", "736", "images"] in rows
    assert ["bytes", "per", "image", "605.4,", "val,", "736", "images"] in rows
