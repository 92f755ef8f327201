"""Images that are scaled as a whole and padded, as detectors take them, and boxes on them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from preprocessings import COCO, IMAGENET, ONE_GREY_LEVEL, made_image
from torchvision import transforms
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from splitzoo.zoo import Preprocessing


@pytest.mark.parametrize(
    ("width", "height", "scaled"),
    [
        *((640, 480, (1066, 800)), (480, 640, (600, 800)), (640, 640, (800, 800))),
        *((1920, 1080, (1333, 749)), (4000, 3000, (1066, 800)), (20_000, 3, (1333, 1))),
        *((3, 20_000, (1, 800)), (1, 1, (800, 800))),
    ],
)
def test_an_image_is_as_large_as_the_canvas_allows(width, height, scaled):
    assert COCO.scaled_size(width, height) == scaled
    assert COCO.pixels(Image.new("RGB", (width, height))).shape == (*reversed(scaled), 3)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_scaled_images_fit_and_touch_a_bound(width, height):
    new_width, new_height = COCO.scaled_size(width, height)
    assert 1 <= new_width <= 1333
    assert 1 <= new_height <= 800
    # Truncation may lose a pixel where the bound is not met exactly.
    assert new_width >= 1332 or new_height >= 799


def torchvision_detector_input(image):
    transform = GeneralizedRCNNTransform(800, 1333, IMAGENET.mean, IMAGENET.std).eval()
    given, _ = transform([transforms.ToTensor()(image)])
    return given.tensors.numpy(), given.image_sizes[0]


# 97 is a side for which 800 / side · side is 799 in floating point.
@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (500, 375), (640, 427), (97, 97), (600, 337), (640, 300)]
)
def test_landscape_images_are_torchvisions_detectors(width, height, tmp_path):
    # Both interpolate from at most four neighbours where an image grows; smaller images are
    # antialiased here, and not there.
    path = tmp_path / "image.png"
    made_image(width, height).save(path)
    expected, size = torchvision_detector_input(made_image(width, height))
    found = COCO.load(path)
    assert (found.shape, found.dtype) == ((1, 3, 800, 1344), np.float32)
    assert COCO.scaled_size(width, height) == size[::-1]
    inside = (slice(None), slice(None), slice(size[0]), slice(size[1]))
    assert np.abs(found[inside] - expected[inside]).max() <= 1.001 * ONE_GREY_LEVEL
    assert not found[:, :, size[0] :].any()
    assert not found[:, :, :, size[1] :].any()


def test_padding_has_its_colour(tmp_path):
    Image.new("RGB", (40, 60), (255, 0, 51)).save(tmp_path / "image.png")
    plain = Preprocessing(
        resize=64,
        crop=(64, 96),
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        fit="pad",
        padding=(0.25, 0.5, 1.0),
    )
    loaded = plain.load(tmp_path / "image.png")
    assert plain.scaled_size(40, 60) == (42, 64)
    assert (loaded[0, :, :, :42] == np.float32([1, 0, 0.2])[:, None, None]).all()
    assert (loaded[0, :, :, 42:] == np.float32([0.25, 0.5, 1])[:, None, None]).all()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (2000, 100), (31, 57)])
@pytest.mark.parametrize("preprocessing", [IMAGENET, COCO], ids=["crop", "pad"])
def test_a_box_on_the_input_is_where_it_was_in_the_image(preprocessing, width, height):
    # A bright block, found again in the input.
    x0, y0, x1, y1 = width * 0.4, height * 0.3, width * 0.6, height * 0.7
    levels = np.zeros((height, width, 3), np.uint8)
    rows, columns = slice(round(y0), round(y1)), slice(round(x0), round(x1))
    levels[rows, columns] = 255
    bright = preprocessing.pixels(Image.fromarray(levels))[:, :, 0] > 127
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(bright.any(axis=a)) for a in (1, 0))
    box = np.array([[left, top, right + 1, bottom + 1]], np.float32)
    found = preprocessing.to_image(box, width, height)
    assert found.dtype == np.float32
    new_width, new_height = preprocessing.scaled_size(width, height)
    pixel = max(width / new_width, height / new_height, 1.0)
    expected = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float32)
    if preprocessing.fit == "crop":
        # The block may reach beyond the crop.
        every = np.array([[0, 0, *preprocessing.crop[::-1]]], np.float32)
        low = preprocessing.to_image(every, width, height)[0]
        expected = np.clip(expected, np.tile(low[:2], 2), np.tile(low[2:], 2))
    assert np.abs(found[0] - expected).max() <= pixel


def test_boxes_are_clipped_to_the_image():
    boxes = np.array([[-5, -5, 2000, 2000], [1000, 700, 1100, 790]], np.float32)
    found = COCO.to_image(boxes, 640, 480)
    assert found[0].tolist() == [0, 0, 640, 480]
    assert found[1, 2:].tolist() == [640, pytest.approx(474)]
    assert COCO.to_image(np.empty((0, 4), np.float32), 640, 480).shape == (0, 4)
