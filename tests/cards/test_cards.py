"""A card says what was measured, all of it true, and nothing else."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard
from names_of_models import RESNET

from splitrun.manifest import read_manifest
from splitzoo import cards, zoo
from splitzoo.cards import diagram
from splitzoo.cards.citation import bibtex
from splitzoo.profile.figures import LIGHT
from splitzoo.profile.report import read_report
from splitzoo.zoo.config import ModelConfig

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
ACCURACY = RESULTS / "flowers" / "flowers-splittable_regnetx_002-fp-beta3-calibrated.json"
LEFTOVERS = ("{{", "}}", "{%", "None", "Undefined")


@pytest.fixture(scope="module")
def trained(tiny_bundle, report, tmp_path_factory):
    """Bundle and report that say of their weights that they were trained."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("trained") / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    command = "splitzoo export split tiny --target cpu"
    manifest["provenance"] |= {"weights": "trained", "seed": None, "command": command}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    profile = json.loads(report.read_text()) | {"weights": "trained", "seed": None}
    path = folder.parent / "report.json"
    path.write_text(json.dumps(profile))
    return folder, path


def headings(card: ModelCard) -> list[str]:
    return re.findall(r"^## (.+)$", card.text, re.MULTILINE)


# Front matter


def test_the_front_matter_is_what_the_hub_knows(card, tiny_model) -> None:
    assert card.data.to_dict() == {
        "library_name": "splitzoo",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": [
            "split-computing",
            "supervised-compression",
            "entropy-coding",
            "entropic-student",
            "factorized-prior",
            "random-weights",
        ],
    }


def test_a_card_round_trips_through_the_hub_library(card, tmp_path) -> None:
    card.save(tmp_path / "again.md")
    again = ModelCard.load(tmp_path / "again.md", ignore_metadata_errors=False)
    assert again.data.to_dict() == card.data.to_dict()
    assert again.text == card.text

    assert "**The weights are random** (seed 0)" in card.text
    assert "## Training" not in card.text  # no recipe trains a model of that name
    assert card.data.base_model is None
    assert card.data.datasets is None


def test_trained_weights_name_their_origin(trained) -> None:
    bundle, report = trained
    card = cards.render(cards.gather(bundle=bundle, profile=report))
    assert card.data.base_model == "timm/resnet50.tv_in1k"
    assert card.data.datasets == ["imagenet-1k"]
    assert "random" not in card.text
    assert "random-weights" not in card.data.tags
    for leftover in LEFTOVERS:
        assert leftover not in card.text


def test_where_nothing_says_what_the_weights_are_nothing_is_claimed() -> None:
    card = cards.render(cards.gather("flowers-splittable_regnetx_002-fp-beta3"))
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert "random-weights" not in card.data.tags


# Use and citation


def test_limits_are_those_of_the_model(card, trained) -> None:
    def limits(card: ModelCard) -> str:
        return card.text.partition("## Intended use and limits")[2].partition("## Sources")[0]

    assert "With random weights, what it tells means nothing" in limits(card)
    assert "The edge receives features, not the picture" in limits(card)
    bundle, report = trained
    of_trained = limits(cards.render(cards.gather(bundle=bundle, profile=report)))
    assert "https://huggingface.co/timm/resnet50.tv_in1k" in of_trained
    # 736 images, 574 of them right: 1.96 · √(0.7799 · 0.2201 / 736) = 0.0299.
    measured = limits(cards.render(cards.gather(accuracy=ACCURACY)))
    assert "on 736 images of one folder (±3.0 points" in measured
    of_codec = limits(cards.render(cards.gather("resnet50-jpeg-q90")))
    assert "receives the picture, as the codec keeps it" in of_codec
    assert "one of 1,000 classes for each image" in of_codec


def test_a_citation_names_the_weights_and_steers_no_tex(card, report) -> None:
    facts = cards.gather(profile=report)
    assert f"note = {{Weights {facts.model_id}}}" in card.text
    assert f"year = {{{facts.profile.date[:4]}}}" in card.text
    hostile = facts.spec.model_copy(update={"name": "a_b}\\input{x}%\n$1"})
    said = bibtex(replace(facts, spec=hostile, repository="org/name"))
    assert said.startswith("@misc{a-b-input-x-1,\n")
    assert r"  title = {a\_b input x \% \$1: a split model}," in said
    assert "  url = {https://huggingface.co/org/name}," in said


# Numbers


def numbers(text: str) -> set[str]:
    """Every number in a text, as it is written there."""
    whole = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
    return set(re.findall(rf"(?<![\w.]){whole}(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)", text))


def spellings(value: object) -> set[str]:
    """The ways in which a card may write a value of a document, and all values within it."""
    if isinstance(value, dict):
        return set().union(*map(spellings, (*value.keys(), *value.values())))
    if isinstance(value, list):
        return set().union({f"{len(value)}"}, *map(spellings, value))
    if isinstance(value, str):
        return numbers(value)
    if isinstance(value, bool) or value is None:
        return set()
    forms = {str(value), f"{value:,}", f"{value:,.0f}", f"{value:.3f}", f"{value:g}"}
    return forms | {f"{value:.1e}", f"{value / 1e6:.1f}"}


def test_every_number_on_the_card_was_measured(card, report, tiny_bundle) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    known = spellings(json.loads(report.read_text())) | spellings(manifest)
    _batch, channels, height, width = manifest["device"]["graph"]["outputs"][0]["shape"]
    known |= {f"{channels * height * width:,}"}
    text = card.text.partition("## Sources")[0]
    # What is written there in words and not measured: an equation, two headings, the batch.
    for phrase in ("Eq. 1", "batch 1", "SHA-256", "float32", "int32"):
        text = text.replace(phrase, "")
    text = re.sub(r"`[0-9a-f]{64}`", "", text)
    assert numbers(text) - known == set()
    assert len(numbers(text)) > 30


def test_the_measurements_stand_in_their_rows(card, report) -> None:
    profile = read_report(report)
    rate = profile.rate
    for row in (
        f"| parameters on the device | {profile.size.parameters:,} |",
        f"| encoder size, bits (Eq. 1 of the SC2 paper) | {profile.size.encoder_bits:,} |",
        f"| encoder size, bits as sc2bench counts | {profile.size.sc2bench_encoder_bits:,} |",
        f"| MACs | {profile.compute.macs:,} | {profile.edge_compute.macs:,} |",
        f"| FLOPs (a MAC is 2) | {profile.compute.flops:,} | {profile.edge_compute.flops:,} |",
        "| operators not counted | none | none |",
        f"{rate.stream_bytes.mean:,.0f} bytes per image (mean of 3)",
    ):
        assert row in card.text
    total = profile.latency.steps["total"]
    row = f"| total | {total.p50_ms:.3f} | {total.p90_ms:.3f} | {total.p99_ms:.3f} |"
    assert row in card.text
    assert profile.command in card.text
    assert profile.date in card.text


def test_the_hashes_on_the_card_are_those_of_the_files(card, tiny_bundle) -> None:
    manifest = read_manifest(tiny_bundle)
    for name in ("device/encoder.onnx", "edge/decoder.onnx", "tables.npz"):
        assert f"| `{name}` | `{manifest.files[name]}` |" in card.text
    assert f"`{manifest.provenance.model_sha256}`" in card.text


def test_sections_are_those_of_what_was_measured(model_report, tiny_bundle) -> None:
    card = cards.render(cards.gather())
    # Its tables were fitted when it was made, and its folder says what that saved.
    assert headings(card) == [
        *("Entropy coding", "Load", "Split and run", "Training"),
        *("Intended use and limits", "Sources"),
    ]
    for word in ("MACs", "latency", "SHA-256", "Measured by", " ms"):
        assert word not in card.text

    card = cards.render(cards.gather(profile=model_report))
    assert headings(card)[:2] == ["Cost on the device", "Load"]
    assert "Parity of the exported halves" not in card.text
    assert "deployed, bytes" not in card.text
    assert "bytes per image, " not in card.text
    assert "payload + 12 bytes" in card.text

    card = cards.render(cards.gather(bundle=tiny_bundle))
    assert headings(card)[:3] == ["Load", "Split and run", "Parity of the exported halves"]


def test_cards_hold_no_leftovers_of_the_template(card, model_report, tiny_bundle) -> None:
    others = [
        cards.gather(),
        cards.gather(profile=model_report),
        cards.gather(bundle=tiny_bundle),
        *(cards.gather(name) for name in zoo.list_architectures()),
    ]
    for one in (card, *map(cards.render, others)):
        for leftover in LEFTOVERS:
            assert leftover not in one.text


# The image


def test_the_diagram_shows_what_was_measured(card_path, card, tiny_bundle, tmp_path) -> None:
    assert sorted(path.name for path in card_path.parent.iterdir()) == [
        "README.md",
        "card.json",
        "split-dark.svg",
        "split.svg",
    ]
    assert 'src="split.svg"' in card.text
    assert 'srcset="split-dark.svg"' in card.text
    said = drawn_texts(card_path.with_name("split.svg"))
    assert {"DEVICE", "LINK", "EDGE", "3×224×224", "entropy", "(untrained)"} <= said
    assert said == drawn_texts(card_path.with_name("split-dark.svg"))
    plain = cards.build(tmp_path / "plain", bundle=tiny_bundle).with_name("split.svg")
    assert not any("GMAC" in text for text in drawn_texts(plain))
    assert any("GMAC" in text for text in said)


def drawn_texts(path: Path) -> set[str]:
    """The lines of text in a drawing."""
    return {text.strip() for text in ElementTree.parse(path).getroot().itertext()} - {""}


# Models of all kinds


@pytest.mark.parametrize(
    ("name", "coder"),
    [
        ("splittable_resnet50-fp-beta0.08", "entropy\ncoder"),
        ("resnet50-mean_scale_hyperprior-q8", "entropy\ncoder"),
        ("splittable_resnet50-bq3ch", "coder"),
        ("resnet50-layer2-jpeg-q90", "coder"),
        ("resnet50-jpeg-q90", "coder"),
    ],
)
def test_only_entropy_coders_are_drawn_as_such(monkeypatch, name, coder) -> None:
    drawn = []
    monkeypatch.setattr(diagram, "_part", lambda _axes, _x, _width, name, *_: drawn.append(name))
    diagram.draw_figure(zoo.get_spec(name), None, LIGHT)
    assert drawn == ["image", "encoder", coder, coder, "decoder", "prediction"]


@pytest.mark.parametrize(
    "name",
    [
        "splittable_resnet50-mshp-beta0.16",
        "splittable_resnet50-bq3ch",
        "resnet50-eb_after_avgpool-beta1.0e-4",
        "resnet50-layer2-jpeg-q90",
        "resnet50-webp-q90",
        "resnet50-joint_autoregressive_hierarchical_prior-q8",
        "faster_rcnn_splittable_resnet50-fp-beta0.08",
        "deeplabv3_splittable_resnet50-bq1ch",
    ],
)
def test_a_card_speaks_of_what_the_model_is(name) -> None:
    spec = zoo.get_spec(name)
    text = cards.render(cards.gather(name)).text
    assert spec.strength in text
    for tensor in spec.wire:
        assert f"{tensor.name} {'×'.join(map(str, tensor.shape))}" in text
    assert ("all of resnet50" in text) == (spec.cut is None)
    assert "None" not in text


def test_a_card_for_the_hub_loads_the_repository(tiny_folder, tmp_path) -> None:
    card = cards.build(tmp_path / "card", str(tiny_folder), repository="org/tiny")
    text = card.read_text()
    assert 'zoo.load("org/tiny")' in text
    assert "splitzoo export split org/tiny" in text
    assert str(tiny_folder) not in text
    assert "**The weights are random** (seed 0)" in text


def test_a_folder_with_the_name_of_a_model_has_its_own_card(tiny_model, tmp_path) -> None:
    folder = zoo.save(tiny_model, tmp_path / RESNET)
    text = cards.build(tmp_path / "card", folder, repository="org/tiny").read_text()
    assert "\n# tiny\n" in text
    assert "**The weights are random** (seed 0)" in text


@pytest.mark.parametrize(
    ("name", "seed", "expected"),
    [
        ("splittable_resnet50-fp-beta0.08", None, "mit"),
        ("resnet50-jpeg-q90", None, None),
        ("resnet50-jpeg-q90", 0, "mit"),
        ("svbi_tf_efficientnet_lite0-fp-beta1", None, "apache-2.0"),
        ("svbi_tf_efficientnet_lite0-fp-beta1", 0, "mit"),
        ("tf_efficientnet_lite0-png", None, "apache-2.0"),
        ("tf_efficientnet_lite0-mean_scale_hyperprior-q3", None, None),
        ("faster_rcnn_tf_efficientnet_lite0-jpeg-q50", None, None),
    ],
)
def test_what_others_trained_is_not_put_under_our_licence(name, seed, expected) -> None:
    spec = zoo.get_spec(name)
    config = ModelConfig(spec=spec, weights_sha256="0" * 64, random_seed=seed)
    assert cards.render(cards.CardFacts(spec, None, None, config)).data.license == expected


@pytest.mark.parametrize(
    ("name", "papers"),
    [
        ("splittable_resnet50-fp-beta0.08", ["2108.11898", "1802.01436"]),
        ("splittable_resnet50-fp-beta1.28e-8-e2e", ["2007.11797", "1802.01436"]),
        ("splittable_resnet50-bq3ch", ["2007.15818"]),
        ("svbi_tf_efficientnet_lite0-fp-beta1", ["2302.10681", "1802.01436"]),
        (
            "faster_rcnn_resnet50-mean_scale_hyperprior-q8",
            ["1809.02736", "2011.03029", "1506.01497"],
        ),
        ("resnet50-jpeg-q90", []),
    ],
)
def test_a_card_cites_the_papers_of_its_model(name, papers) -> None:
    text = cards.render(cards.gather(name)).text.partition("## Sources")[2]
    assert re.findall(r"arxiv\.org/abs/([\d.]+)>", text) == papers
    assert "SC2 Benchmark" in text


def test_only_the_paper_s_own_models_have_its_recipe() -> None:
    own = cards.render(cards.gather("splittable_resnet50-fp-beta0.08")).text
    like = cards.render(cards.gather("splittable_convnext_atto-fp")).text
    assert "The recipe of the paper for this model, `splitzoo zoo recipe splittable" in own
    assert "## Training" not in like
