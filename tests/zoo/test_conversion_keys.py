"""sc2bench's names of tensors made into ours: everything has its place, or is an error."""

import pytest
import torch
import torchvision
from sc2bench_names import COUNTERS, INTEGERS, NAMES, TABLES, TINY, is_table, theirs

from splitrun.errors import CheckpointError
from splitzoo import zoo
from splitzoo.zoo.conversion.keys import map_tensors


@pytest.fixture(scope="module")
def tiny():
    """A model of one of sc2bench's architectures on a tiny backbone. Shared."""
    return zoo.build(TINY, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_goes_to_its_place(name):
    model = zoo.build(name)
    state = model.state_dict()
    checkpoint = theirs(model)
    assert len(checkpoint) == sum(not one.startswith(INTEGERS) for one in state)
    mapped, left_out = map_tensors(model.spec, checkpoint, state)
    assert mapped.keys() == {one for one in state if not is_table(one)}
    for one, tensor in mapped.items():
        assert tensor.data_ptr() == state[one].data_ptr(), one
    tables = tuple(one for one in checkpoint if is_table(one))
    assert [(one.reason, one.names) for one in left_out] == ([(TABLES, tables)] if tables else [])


def test_counters_of_batches_have_no_place_where_batch_norms_are_frozen(tiny):
    model = zoo.build("faster_rcnn_splittable_test_resnet-fp")
    checkpoint = theirs(model)
    counters = [
        name.replace("running_var", "num_batches_tracked")
        for name in checkpoint
        if name.endswith("running_var")
    ]
    assert counters
    checkpoint |= dict.fromkeys(counters, torch.tensor(7))
    _, left_out = map_tensors(model.spec, checkpoint, model.state_dict())
    assert {left.reason: len(left.names) for left in left_out} == {
        TABLES: 3,
        COUNTERS: len(counters),
    }
    assert left_out[1].names == tuple(counters)
    # They are kept where the model has them.
    checkpoint = theirs(tiny)
    counters = [name for name in checkpoint if name.endswith("num_batches_tracked")]
    checkpoint |= dict.fromkeys(counters, torch.tensor(7))
    mapped, _ = map_tensors(tiny.spec, checkpoint, tiny.state_dict())
    assert {int(mapped[f"decoder.tail.{name}"]) for name in counters} == {7}


OLD_DENSITIES = {
    # CompressAI 1.1: parameters with numbered names.
    "1.1": {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"},
    "1.0": {"matrices.": "_matrices.", "biases.": "_biases.", "factors.": "_factors."},
}


def aged(checkpoint, names):
    """Give tensors the names that an older version had."""
    old = {}
    for name, tensor in checkpoint.items():
        for new, before in names.items():
            name = name.replace(new, before)
        old[name] = tensor
    return old


def assert_aged_is_mapped(model, names, aged_tensors):
    current = theirs(model)
    old = aged(current, names)
    assert len(old.keys() - current.keys()) == aged_tensors
    mapped, _ = map_tensors(model.spec, old, model.state_dict())
    expected, _ = map_tensors(model.spec, current, model.state_dict())
    assert mapped.keys() == expected.keys()
    assert all(tensor.data_ptr() == expected[name].data_ptr() for name, tensor in mapped.items())


@pytest.mark.parametrize(
    "name", [TINY, "splittable_test_resnet-mshp", "resnet50-eb_after_layer1-beta1.0e-15"]
)
def test_densities_of_older_versions_of_compressai_are_mapped(name):
    model = zoo.build(name)
    for names in OLD_DENSITIES.values():
        assert_aged_is_mapped(model, names, 14)


def test_detectors_of_older_versions_of_torchvision_are_mapped():
    convolutions = {"rpn.head.conv.0.0.": "rpn.head.conv."} | {
        f"fpn.{kind}_blocks.{level}.0.": f"fpn.{kind}_blocks.{level}."
        for kind in ("inner", "layer")
        for level in range(4)
    }
    model = zoo.build("faster_rcnn_splittable_test_resnet-fp")
    assert_aged_is_mapped(model, convolutions, 2 * (1 + 8))


def unfit(model, checkpoint):
    with pytest.raises(CheckpointError) as caught:
        map_tensors(model.spec, checkpoint, model.state_dict())
    assert f"does not fit {model.spec.name}" in caught.value.message
    assert "--name NAME" in caught.value.next_step
    return caught.value.message


def test_missing_unexpected_and_reshaped_tensors_are_all_listed(tiny):
    checkpoint = theirs(tiny)
    del checkpoint["fc.bias"], checkpoint["bottleneck_layer.encoder.1.beta"]
    checkpoint["layer9.0.weight"] = checkpoint["teacher.fc.weight"] = torch.ones(1)
    checkpoint["fc.weight"] = torch.ones(3, 4)
    checkpoint["bottleneck_layer.encoder.0.weight"] = torch.ones(96, 3, 5, 5, dtype=torch.float64)
    message = unfit(tiny, checkpoint)
    assert "  2 missing, by our names: decoder.tail.fc.bias, encoder.1.beta\n" in message
    assert "  2 unexpected: layer9.0.weight, teacher.fc.weight\n" in message
    wanted = "×".join(map(str, tiny.state_dict()["decoder.tail.fc.weight"].shape))
    assert (
        "  2 of another shape or type: "
        "bottleneck_layer.encoder.0.weight (96×3×5×5 float64, not 96×3×5×5 float32), "
        f"fc.weight (3×4 float32, not {wanted} float32)"
    ) in message


@pytest.mark.parametrize("name", ["fc.weight", "bottleneck_layer.entropy_bottleneck.quantiles"])
def test_one_tensor_is_enough_to_be_refused(tiny, name):
    checkpoint = theirs(tiny)
    del checkpoint[name]
    assert "missing" in unfit(tiny, checkpoint)
    checkpoint = theirs(tiny) | {f"{name}s": torch.ones(1)}
    assert f"1 unexpected: {name}s" in unfit(tiny, checkpoint)
    checkpoint = theirs(tiny)
    checkpoint[name] = checkpoint[name][:-1]
    assert "of another shape" in unfit(tiny, checkpoint)


def test_a_tensor_under_an_old_and_a_new_name_is_one_too_many(tiny):
    checkpoint = theirs(tiny)
    before = "bottleneck_layer.entropy_bottleneck."
    checkpoint[f"{before}_matrix0"] = checkpoint[f"{before}matrices.0"]
    message = unfit(tiny, checkpoint)
    assert f"unexpected: {before}_matrix0 (the same as {before}matrices.0)" in message


def test_a_long_list_is_grouped_and_counted(tiny):
    names = [*(f"a.b.{number}" for number in range(6)), *(f"a.c.{number}" for number in range(3))]
    names += [*(f"{letter}.one.x" for letter in "defg"), "z"]
    checkpoint = theirs(tiny) | dict.fromkeys(names, torch.ones(1))
    assert unfit(tiny, checkpoint).splitlines() == [
        f"The checkpoint does not fit {TINY}, which is for image-classification with a "
        "factorized-prior bottleneck:",
        "  14 unexpected: 6 in a.b, 3 in a.c, 3 more groups; such as a.b.0, a.b.1, a.b.2, a.b.3",
    ]
    # However many tensors, a screen holds it.
    many = {f"layer{n % 9}.{n}.weight": torch.ones(1) for n in range(5000)}
    assert len(unfit(tiny, many)) < 1000


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        # A network of torchvision, as pip install gives it.
        (lambda: torchvision.models.resnet18().state_dict(), "it is of a classifier."),
        (
            lambda: torchvision.models.detection.fasterrcnn_resnet50_fpn(
                weights=None, weights_backbone=None
            ).state_dict(),
            "it is of a detector (faster_rcnn_…).",
        ),
        (
            lambda: theirs(zoo.build("splittable_test_resnet-mshp")),
            "a classifier with a hyperprior (…-shp or …-mshp)",
        ),
        (
            lambda: torch.nn.DataParallel(torch.nn.Linear(2, 2)).state_dict(),
            "All its names begin with module., ",
        ),
        (lambda: {"something.else": 0, "other": 0}, "sc2-benchmark has not."),
    ],
)
def test_the_likely_cause_is_told(tiny, names, cause):
    checkpoint = dict.fromkeys(names(), torch.ones(1))
    with pytest.raises(CheckpointError) as caught:
        map_tensors(tiny.spec, checkpoint, tiny.state_dict())
    assert cause in caught.value.next_step
