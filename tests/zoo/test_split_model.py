"""A split model as Python users meet it: how it prints, and what it takes."""

import pytest
import torch
from small_models import small_spec

from splitrun.errors import BitstreamError, SpecError
from splitzoo import zoo


def test_a_model_prints_what_it_is_in_ten_lines(tiny_model):
    spec = tiny_model.spec
    shown = repr(tiny_model).splitlines()
    bits = 32 * sum(parameter.numel() for parameter in tiny_model.device_parameters())
    assert len(shown) == 10
    assert shown[:3] == [
        "SplitModel tiny",
        "  task:        image-classification, 10 classes (imagenet-1k)",
        "  backbone:    test_resnet, cut after layer1",
    ]
    assert "  on the wire: symbols 4×55×55 int32" in shown
    assert f"{bits:,} encoder bits: convolutions and GDN, channels 3 → 8 → 8 → 4" in shown[6]
    assert shown[8:] == ["  weights:     random, seed 0", "  calibration: none"]
    assert spec.strength in shown[3]


def test_a_print_says_all_wire_tensors_and_where_trained_weights_are_from():
    model = zoo.build(small_spec("image-classification", "mshp"))
    model.origin, model.source = "a checkpoint", "folder"
    shown = repr(model.train())
    assert "on the wire: latent 4×15×15 float32, hyper_symbols 4×4×4 int32\n" in shown
    assert "  weights:     trained, a checkpoint, loaded from folder\n" in shown


def test_what_a_model_takes(tiny_model):
    image = torch.zeros(1, 3, 64, 64)
    for wrong in (image[0, 0], image[:, :1], image.byte(), image.numpy().astype(int), "photo.jpg"):
        with pytest.raises(SpecError, match=r"\(3, H, W\) float32, not as .+") as caught:
            tiny_model.compress(wrong)
        assert str(tuple(getattr(wrong, "shape", ()))) in caught.value.message
        assert "preprocessing.load" in caught.value.next_step
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (stream,) = tiny_model.compress(image)
    for same in (
        image[0],
        image.numpy(),
        image[0].numpy(),
        image.double(),
        image.numpy()[..., ::-1][..., ::-1],
    ):
        assert tiny_model.compress(same) == [stream]
    mirrored = image.numpy()[..., ::-1]
    assert tiny_model.compress(mirrored) == tiny_model.compress(image.flip(-1))
    for wrong in ("photo.sz", [3], ["photo.sz"]):
        with pytest.raises(BitstreamError, match=r"A stream is bytes, not (str|int)\."):
            tiny_model.decompress(wrong)
    expected = tiny_model.decompress([stream])
    assert torch.equal(tiny_model.decompress(stream), expected)
    assert torch.equal(tiny_model.decompress((bytearray(stream),)), expected)
