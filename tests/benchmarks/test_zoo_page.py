"""The table of the zoo."""

import re
from importlib.metadata import version

import numpy as np
import pytest

from benchmarks.matrix.zoo_parity import compare
from benchmarks.matrix.zoo_table import measure_zoo, render_zoo
from splitrun.coding import FactorizedCoder
from splitrun.errors import ParityError
from splitzoo import zoo
from splitzoo.zoo.encoder_rows import encoder_rows

COMMAND = "python -m benchmarks.matrix zoo -o zoo.md"


@pytest.fixture(scope="module")
def rows():
    def say(spec) -> str:
        if spec.method == "channel-reduction":
            raise ParityError("3 of 4 symbols differ")
        return f"compared as {spec.name}"

    names = ["splittable_resnet50-fp-beta0.08", "splittable_resnet50-bq1ch"]
    return list(measure_zoo(names, compare=say))


def test_a_row_says_what_the_reference_counts(rows) -> None:
    # Parameters and operations of the paper's own network, as counted there.
    row = rows[0]
    assert (row.parameters, row.encoder_bits, row.device_macs) == (138_672, 4_437_504, 588_354_048)
    assert row.parity == "compared as splittable_resnet50-fp-beta0.08"


def test_the_package_s_rows_are_what_is_counted(rows) -> None:
    for row in rows:
        same = {"parity": row.parity, "versions": row.versions}
        assert encoder_rows()[row.model].model_copy(update=same) == row


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
    assert len(zoo.list_models("splittable_resnet50-fp-*")) == 12


def test_a_count_that_is_not_complete_is_said_to_be_a_bound(rows) -> None:
    text = render_zoo([rows[0].model_copy(update={"uncounted": "aten::x ×2"})], command=COMMAND)
    assert "| at least 588,354,048 |" in text


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
