"""The table of the zoo, and cards of models of all kinds."""

import pytest

from splitzoo import zoo
from splitzoo.cards.card import build_card, gather_facts, render_card
from splitzoo.cards.zoo_parity import compare
from splitzoo.cards.zoo_table import measure_zoo, render_zoo, write_zoo
from splitzoo.errors import ParityError

COMMAND = "splitzoo cards zoo -o zoo.md"


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


def test_the_table_has_a_line_for_each_architecture(rows, tmp_path) -> None:
    path = tmp_path / "zoo.md"
    write_zoo(path, render_zoo(rows, command=COMMAND))
    text = path.read_text()
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


@pytest.mark.filterwarnings("ignore")  # of the peer, which uses what others have deprecated
def test_a_factorized_model_is_compared_with_sc2bench() -> None:
    pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test`")
    said = compare(zoo.get_spec("splittable_resnet50-fp-beta0.08"))
    assert said.startswith("sc2bench 0.1.1: 145,200 of 145,200 symbols equal, outputs ")


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
    text = render_card(gather_facts(name)).text
    assert spec.strength in text
    for tensor in spec.wire:
        assert f"{tensor.name} {'×'.join(map(str, tensor.shape))}" in text
    assert ("all of resnet50" in text) == (spec.cut is None)
    assert "None" not in text


def test_a_card_for_the_hub_loads_the_repository(tiny_folder, tmp_path) -> None:
    card = build_card(tmp_path / "card", str(tiny_folder), repository="org/tiny")
    text = card.read_text()
    assert 'zoo.load("org/tiny")' in text
    assert "splitzoo export split org/tiny" in text
    assert str(tiny_folder) not in text
    assert "**The weights are random** (seed 0)" in text
