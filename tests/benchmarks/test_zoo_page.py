"""The table of the zoo, and cards of models of all kinds."""

import re
from importlib.metadata import version

import numpy as np
import pytest
from names_of_models import RESNET

from benchmarks.matrix.zoo_parity import compare
from benchmarks.matrix.zoo_table import measure_zoo, render_zoo
from splitrun.coding import FactorizedCoder
from splitrun.errors import ParityError
from splitzoo import cards, zoo
from splitzoo.cards import diagram as image
from splitzoo.zoo.config import ModelConfig

COMMAND = "python -m benchmarks.matrix zoo -o zoo.md"


@pytest.fixture(scope="module")
def rows():
    def say(spec) -> str:
        if spec.method == "channel-reduction":
            raise ParityError("3 of 4 symbols differ")
        return f"compared as {spec.name}"

    return measure_zoo(
        ["splittable_resnet50-fp-beta0.08", "splittable_resnet50-bq1ch"], compare=say
    )


def test_a_row_says_what_the_reference_counts(rows) -> None:
    # Parameters and operations of the paper's own network, as counted there.
    row = rows[0]
    assert (row.parameters, row.bits, row.macs) == (138_672, 4_437_504, 588_354_048)
    assert row.models == len(zoo.list_models("splittable_resnet50-fp-*"))
    assert row.parity == "compared as splittable_resnet50-fp-beta0.08"


def test_a_difference_from_the_reference_is_said_in_the_table(rows) -> None:
    assert rows[1].parity == "**differs**: 3 of 4 symbols differ"


def test_the_table_has_a_line_for_each_architecture(rows) -> None:
    text = render_zoo(rows, command=COMMAND)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith(
        "| `splittable_resnet50-fp-beta0.08` | 12 | resnet50 after layer1 | symbols 24×55×55 int32 "
        "| 72,600 | 138,672 | 4,437,504 | 588,354,048 |"
    )
    assert f"`{COMMAND}`" in text


def test_every_model_belongs_to_one_architecture() -> None:
    groups = zoo.list_architectures()
    named = [name for names in groups.values() for name in names]
    assert sorted(named) == sorted(zoo.list_models())
    assert all(first == names[0] for first, names in groups.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the peer, which uses what others have deprecated
def test_a_factorized_model_is_compared_with_sc2bench() -> None:
    pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test`")
    said = compare(zoo.get_spec("splittable_resnet50-fp-beta0.08"))
    assert said.startswith("sc2bench 0.1.1: 145,200 of 145,200 symbols equal, outputs ")


@pytest.mark.parametrize(
    ("architecture", "symbols"),
    [
        # Of y (8×8×8) and z (6×2×2); of the joint codec, of z alone.
        ("bmshj2018-factorized", 512),
        ("bmshj2018-hyperprior", 536),
        ("mbt2018-mean", 536),
        ("mbt2018", 24),
    ],
)
def test_a_learned_codec_is_compared_with_compressai(architecture, symbols) -> None:
    content = zoo.get_spec("resnet50-factorized_prior-q8").model_dump()
    content["bottleneck"] |= {"architecture": architecture, "quality": 1, "channels": (6, 8)}
    said = compare(zoo.ModelSpec.model_validate(content))
    assert said.startswith(f"compressai {version('compressai')}: {symbols} of {symbols} symbols ")
    assert re.search(r" symbols equal, decoded image (equal|within 1e-0\d)$", said)


def test_a_codec_that_decodes_another_image_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(FactorizedCoder, "decode", _decode_other)
    content = zoo.get_spec("resnet50-factorized_prior-q8").model_dump()
    content["bottleneck"] |= {"quality": 1, "channels": (6, 8)}
    with pytest.raises(ParityError, match="the image differs from CompressAI's by"):
        compare(zoo.ModelSpec.model_validate(content))


def _decode_other(coder, _payload, height, width, _hyper=None):
    return (np.full((coder.channels, height, width), 9, np.int32),)


@pytest.mark.parametrize("name", ["resnet50-jpeg-q90", "resnet50-layer2-webp-q90"])
def test_an_image_codec_has_no_reference(name) -> None:
    assert compare(zoo.get_spec(name)) == "none: an image codec, and the network"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the peer, which uses what others have deprecated
def test_the_older_channel_reduction_names_its_reference() -> None:
    pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test`")
    said = compare(zoo.get_spec("splittable_resnet50-bq1ch"))
    assert said.startswith(
        "sc2bench 0.1.1 around the bottleneck of 0.0.3 as splitzoo builds it: outputs "
    )


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
def test_only_entropy_coders_are_drawn_as_such(monkeypatch, tmp_path, name, coder) -> None:
    drawn = []
    monkeypatch.setattr(image, "_part", lambda _axes, _x, _width, name, _: drawn.append(name))
    image.draw_split(zoo.get_spec(name), None, tmp_path / "split.png")
    assert drawn == ["image", "encoder", coder, coder, "decoder", "answer"]


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
