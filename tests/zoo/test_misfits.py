"""Specs whose parts do not fit: refused when they are read or built, not at the first image."""

import pytest
import torch
from pydantic import ValidationError

from splitrun.errors import SpecError
from splitrun.preprocessing import Preprocessing
from splitzoo import zoo
from splitzoo.zoo.backbones.table import find_backbone
from splitzoo.zoo.bottleneck_specs import (
    FactorizedPriorBottleneck,
    InputCodecBottleneck,
    LayerBottleneck,
    NeuralCodecBottleneck,
)
from splitzoo.zoo.parts import build_model, check_fit, describe

BACKBONE = find_backbone("test_resnet")
LAYER1, LAYER2 = BACKBONE.stages[:2]
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
SIZES = {"encoder_channels": (8, 8, 4), "decoder_channels": (16, 16, LAYER1.channels)}
NEURAL = {"architecture": "bmshj2018-factorized", "quality": 1, "channels": (6, 8)}


def spec(bottleneck, cut=None, *, size=(64, 64), **changes):
    values = PLAIN if cut is None else {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    facts = {
        "name": "small",
        "task": "image-classification",
        "method": "input-compression" if cut is None else "entropic-student",
        "backbone": "test_resnet",
        "cut": cut,
        "bottleneck": bottleneck,
        "dataset": "made",
        "num_classes": 7,
        "preprocessing": Preprocessing(resize=64, crop=size, interpolation="bilinear", **values),
    }
    return zoo.ModelSpec(**{**facts, **changes})


def layer(channels=LAYER2.channels, stride=8):
    return LayerBottleneck(channels=channels, stride=stride)


FITTING = {
    "factorized prior": spec(FactorizedPriorBottleneck(**SIZES), LAYER1.layer),
    "layer": spec(layer(), LAYER2.layer),
    "image codec": spec(InputCodecBottleneck(codec="jpeg", quality=80)),
    "learned codec, cropped": spec(NeuralCodecBottleneck(**NEURAL, crop=(48, 40))),
    "detector": spec(
        FactorizedPriorBottleneck(**SIZES), LAYER1.layer, size=(64, 32), task="object-detection"
    ),
    "segmentation": spec(
        FactorizedPriorBottleneck(**SIZES), LAYER1.layer, task="semantic-segmentation"
    ),
}


@pytest.mark.parametrize("fitting", FITTING.values(), ids=FITTING)
def test_parts_that_fit_are_built_and_left_as_they_are(fitting) -> None:
    model = build_model(fitting).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_fit(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model = zoo.build(fitting)
    with torch.no_grad():
        model(torch.rand(1, *fitting.input_shape))


def test_a_network_that_keeps_what_it_computed_keeps_nothing_of_the_check() -> None:
    class Keeping(torch.nn.Module):
        kept = None

        def forward(self, image):
            self.kept = image
            return image

    model = build_model(FITTING["image codec"]).eval()
    model.encoder = Keeping()
    check_fit(model)
    assert model.encoder.kept is None


PRIOR = FactorizedPriorBottleneck(**SIZES)
WRONG_PRIOR = FactorizedPriorBottleneck(**{**SIZES, "decoder_channels": (16, 16, 5)})
JPEG = InputCodecBottleneck(codec="jpeg", quality=9)
WIDE, GIVES = LAYER2.channels + 1, f"gives {LAYER2.channels}×8×8, where its spec says"
MISFITS = [
    (spec(WRONG_PRIOR, LAYER1.layer), "cannot be built"),
    (spec(WRONG_PRIOR, LAYER1.layer, task="object-detection"), "cannot be built"),
    (spec(PRIOR, LAYER2.layer), "cannot be built"),
    (spec(layer(channels=WIDE), LAYER2.layer), f"the encoder {GIVES} {WIDE}×8×8"),
    (spec(layer(stride=16), LAYER2.layer), f"{GIVES} {LAYER2.channels}×4×4"),
    (spec(layer(stride=8), LAYER1.layer), "the encoder gives"),
    # Not read from anywhere, so not checked on the way.
    (spec(PRIOR, LAYER1.layer).model_copy(update={"cut": None}), "cannot be built"),
    (spec(JPEG).model_copy(update={"cut": LAYER1.layer}), "cannot be built"),
]


@pytest.mark.parametrize(("misfit", "said"), MISFITS)
def test_parts_that_do_not_fit_are_refused(misfit, said) -> None:
    for make in (zoo.build, describe):
        with pytest.raises(SpecError) as caught:
            make(misfit)
        assert said in caught.value.message


def test_a_quality_is_one_of_its_codec() -> None:
    highest = dict.fromkeys(("jpeg", "webp", "avif", "heic"), 100) | {"bpg": 51, "vtm": 63}
    for codec, quality in highest.items():
        assert InputCodecBottleneck(codec=codec, quality=quality).quality == quality
        with pytest.raises(ValidationError, match="quality"):
            InputCodecBottleneck(codec=codec, quality=quality + 1)


def with_values(mean, std):
    return {"preprocessing": Preprocessing(64, (64, 64), "bilinear", mean, std)}


@pytest.mark.parametrize(
    ("bottleneck", "changes", "said"),
    [
        (InputCodecBottleneck(codec="jpeg", quality=9, crop=(65, 64)), {}, "a crop of"),
        (NeuralCodecBottleneck(**NEURAL, crop=(64, 65)), {}, "a crop of"),
        (JPEG, {"cut": "layer1"}, "in front of any cut"),
        (NeuralCodecBottleneck(**NEURAL), {"cut": "layer1"}, "in front of any cut"),
        (PRIOR, {}, "needs a cut"),
        (layer(), {}, "needs a cut"),
        (JPEG, with_values((0, 0, 0.1), (1, 1, 1)), "mean 0 and std 1"),
        (JPEG, with_values((0, 0, 0), (1, 0.9, 1)), "mean 0 and std 1"),
        (NeuralCodecBottleneck(**NEURAL), with_values((0.1, 0, 0), (1, 1, 1)), "mean 0 and std 1"),
    ],
)
def test_a_spec_that_contradicts_itself_is_none(bottleneck, changes, said) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(bottleneck, **changes)


def test_widths_that_would_take_all_memory_are_refused() -> None:
    wide = ("encoder_channels", (8, 1025, 8)), ("decoder_channels", (2049, 8, 8))
    for name, widths in wide:
        with pytest.raises(ValidationError, match="less than or equal to"):
            FactorizedPriorBottleneck(**{**SIZES, name: widths})
    for widths in ((1025, 8), (8, 1025)):
        with pytest.raises(ValidationError, match="less than or equal to"):
            NeuralCodecBottleneck(**{**NEURAL, "channels": widths})


def test_images_that_leave_no_latent_are_refused(tiny_model) -> None:
    with pytest.raises(SpecError, match="4×64 pixels leaves no latent") as caught:
        tiny_model.compress(torch.zeros(1, 3, 4, 64))
    assert "224×224" in caught.value.next_step


def test_describing_a_model_leaves_the_random_state_alone(tiny_model) -> None:
    before = torch.get_rng_state()
    described = describe(tiny_model.spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert described.device_parameters == sum(map(torch.numel, tiny_model.device_parameters()))
    assert described.edge_parameters == sum(map(torch.numel, tiny_model.edge_parameters()))
