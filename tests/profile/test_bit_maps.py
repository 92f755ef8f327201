"""Maps of bits: where in an image they go, and the panels that show it."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from splitrun.errors import SpecError
from splitzoo import zoo
from splitzoo.profile.bit_maps import BitMap, common_part, draw_panels, map_bits


@pytest.mark.parametrize("kind", ["fp", "mshp"])
def test_a_map_holds_all_bits_of_the_density(kind, tiny_model, photo):
    model = tiny_model
    if kind == "mshp":
        spec = zoo.get_spec("splittable_test_resnet-mshp")
        small = spec.model_dump()["preprocessing"] | {"resize": 64, "crop": (64, 64)}
        model = zoo.build(spec.model_validate({**spec.model_dump(), "preprocessing": small}))
    image = model.spec.preprocessing.load(photo)
    found = map_bits(model, image)
    assert found.bits.shape == image.shape[-2:]
    import torch

    with torch.no_grad():
        likelihoods = model.bottleneck.likelihoods(model.encoder(torch.from_numpy(image)))
    expected = -sum(float(one.log2().sum()) for one in likelihoods)
    assert found.total_bits == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(found.bits).all()


def test_an_image_codecs_map_is_of_its_payload(photo):
    spec = zoo.get_spec("test_resnet-jpeg-q30")
    small = spec.model_dump()["preprocessing"] | {"resize": 64, "crop": (64, 64)}
    model = zoo.build(spec.model_validate({**spec.model_dump(), "preprocessing": small}))
    image = np.full((1, 3, 64, 64), 0.5, np.float32)
    random = np.random.default_rng(0)
    image[:, :, 16:32, 32:48] = random.random((1, 3, 16, 16))
    found = map_bits(model, image)
    assert found.total_bits == pytest.approx(8 * found.payload_bytes, rel=1e-3)
    # All of the content is in one block.
    assert found.bits[16:32, 32:48].sum() == pytest.approx(found.total_bits, rel=0.05)


def test_what_has_no_map_says_so(splitzoo, tmp_path, photo):
    model = zoo.build("splittable_test_resnet-bq3ch")
    with pytest.raises(SpecError, match="no learned density"):
        map_bits(model, model.spec.preprocessing.load(photo))
    code, _, err = splitzoo("profile", "bits", "resnet5", photo, "-o", tmp_path / "maps")
    assert code == 1
    assert "No model is named" in err


def test_a_map_of_a_larger_input_is_cut_to_the_part_that_both_see():
    split = zoo.get_spec("splittable_resnet50-fp-beta0.08").preprocessing
    codec = zoo.get_spec("resnet50-scale_hyperprior-q8").preprocessing
    assert (split.crop, codec.crop, split.resize, codec.resize) == (
        (224, 224),
        (256, 256),
        256,
        256,
    )
    bits = np.zeros((256, 256), np.float32)
    bits[16, 16] = bits[239, 239] = 1  # the corners of the centre
    bits[15, 15] = 1
    ours = BitMap("split", np.ones((224, 224), np.float32), 224.0**2, 900)
    kept, cut = common_part(ours, BitMap("codec", bits, 3.0, 1000), (split, codec))
    assert kept == replace(ours, bits=kept.bits)
    assert (cut.bits.shape, cut.total_bits, cut.payload_bytes) == ((224, 224), 2, 1000)
    assert cut.bits[0, 0] == cut.bits[-1, -1] == 1
    other = replace(split, resize=248)
    with pytest.raises(SpecError, match="at different scales"):
        common_part(ours, ours, (split, other))


@pytest.mark.parametrize("shape", [(64, 64), (60, 100)])
@pytest.mark.parametrize("compared", [False, True])
def test_panels_are_aligned_and_all_their_text_is_on_the_canvas(shape, compared):
    bits = np.random.default_rng(0).random(shape).astype(np.float32)
    name = "faster_rcnn_splittable_resnet50-mshp-beta0.16-with_a_long_name"
    ours = BitMap(name, bits, float(bits.sum()), 12_345_678)
    theirs = BitMap(name, 2 * bits, float(2 * bits.sum()), 12_345_678) if compared else None
    figure = draw_panels(np.zeros((*shape, 3), np.uint8), ours, theirs)
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == (5 if compared else 2)
    boxes = [axes.get_window_extent() for axes in panels]
    for box in boxes:
        assert (box.y0, box.y1) == pytest.approx((boxes[0].y0, boxes[0].y1))
        assert box.height / box.width == pytest.approx(shape[0] / shape[1])
    titles = [axes.title.get_window_extent() for axes in panels]
    for left, right in itertools.pairwise(titles):
        assert left.x1 < right.x0
    for text in (*titles, *(axes.get_tightbbox() for axes in figure.axes)):
        assert figure.bbox.x0 <= text.x0 < text.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= text.y0 < text.y1 <= figure.bbox.y1
    if compared:
        of_bits, of_shares = (axes.images[-1].get_array() for axes in panels[3:])
        np.testing.assert_allclose(of_bits, -bits)
        np.testing.assert_allclose(of_shares, 0, atol=1e-3)  # the same places, twice the bits


def test_maps_are_drawn_beside_those_of_a_codec(splitzoo, tmp_path, tiny_folder, photo):
    folder = tmp_path / "maps"
    words = ("profile", "bits", tiny_folder, photo, "-o", folder, "--random-weights", "--json")
    code, out, err = splitzoo(*words, "--against", "regnetx_002-jpeg-q20")
    assert code == 0, err
    (row,) = json.loads(out)
    assert math.isfinite(row["total_bits"])
    assert 0 < row["against_payload_bytes"] < 20_000
    with Image.open(folder / row["map"].rpartition("/")[2]) as drawn:
        assert drawn.size[0] > 800
    code, _, err = splitzoo(*words[:5], tmp_path / "c", *words[6:], "--against", "test_resnet-png")
    assert (code, (tmp_path / "c").exists()) == (1, False)
    assert "at different scales" in err
