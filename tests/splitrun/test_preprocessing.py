import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from preprocessings import COCO, IMAGENET, ONE_GREY_LEVEL, made_image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from splitrun.errors import ImageError
from splitrun.image_reading import upright_size

ODD_SIZES = [
    *((256, 256), (224, 224), (255, 257), (300, 301), (301, 300), (500, 375)),
    (343, 256),  # a crop that begins at 59.5
    *((257, 2000), (37, 91), (91, 37), (3, 200), (400, 3), (2, 1), (1, 1)),
]
SUFFIXES = [
    *("jpg", "png", "bmp", "gif", "webp", "tiff", "ppm", "avif", "jp2", "tga", "qoi", "dds", "sgi"),
    *("pcx", "ico", "icns", "dib"),
]
ODD_CROPS = [
    pytest.param({}, id="ImageNet"),
    pytest.param({"resize": 235, "crop": (192, 225)}, id="odd crop"),
    pytest.param({"resize": 224}, id="crop of the whole side"),
]


def torchvision_of(preprocessing):
    bicubic = preprocessing.interpolation == "bicubic"
    return transforms.Compose(
        [
            transforms.Resize(
                preprocessing.resize,
                InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR,
            ),
            transforms.CenterCrop(preprocessing.crop),
        ]
    )


def normalised(image):
    to_input = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(IMAGENET.mean, IMAGENET.std)]
    )
    return to_input(image)[None].numpy()


def levels(image):
    return np.asarray(image).astype(int)


def colours(path):
    """The set of colours in the model's input, as grey levels."""
    values = IMAGENET.load(path)[0].transpose(1, 2, 0) * np.float32(IMAGENET.std)
    pixels = np.rint((values + np.float32(IMAGENET.mean)) * 255).astype(int)
    return {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}


def png(width, height, data=b""):
    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# torchvision resizes the whole image and crops it, we resize the part that is kept. Both round
# to whole grey levels between the horizontal and the vertical pass, from coordinates whose last
# bits differ: where a value lies on the boundary, the rounding may go the other way.
def test_images_are_within_one_grey_level_of_torchvision(photos):
    for path in photos:
        with Image.open(path) as opened:
            expected = normalised(torchvision_of(IMAGENET)(opened.convert("RGB")))
        loaded = IMAGENET.load(path)
        assert loaded.dtype == np.float32
        assert loaded.shape == expected.shape == (1, 3, 224, 224)
        assert np.abs(loaded - expected).max() <= ONE_GREY_LEVEL * 1.0001


# Bicubic weights reach 1.25 in sum, so that roundings grow from pass to pass. Beyond that, values
# that overshoot are clipped between the passes, whose order Pillow takes from the output's size:
# its images here keep away from black and white.
@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 1), ("bicubic", 2)])
@pytest.mark.parametrize("changes", ODD_CROPS)
def test_odd_sizes_are_within_grey_levels_of_torchvision(changes, interpolation, most):
    preprocessing = replace(IMAGENET, interpolation=interpolation, **changes)
    for size in ODD_SIZES:
        image = made_image(*size)
        if interpolation == "bicubic":
            image = image.point(lambda level: 64 + level // 2)
        pixels = preprocessing.pixels(image)
        expected = levels(torchvision_of(preprocessing)(image))
        assert pixels.dtype == np.uint8
        assert pixels.shape == expected.shape == (*preprocessing.crop, 3)
        assert np.abs(levels(pixels) - expected).max() <= most, size


def test_equal_pixels_are_normalised_as_torchvision_does():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    loaded = IMAGENET.normalise(pixels)
    assert (loaded.dtype, loaded.shape) == (np.float32, (1, 3, 5, 7))
    assert loaded.flags.c_contiguous
    # One float32 rounding more or less.
    np.testing.assert_allclose(loaded, normalised(pixels), rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize(
    ("orientation", "stored_as"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_an_image_is_turned_as_its_exif_tag_says(tmp_path, mode, orientation, stored_as):
    upright = made_image(40, 30)
    if mode == "I;16":
        upright = Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257)
    upright.save(tmp_path / "upright.png")
    stored = upright if stored_as is None else upright.transpose(stored_as)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "stored.png", exif=exif)
    expected = IMAGENET.load(tmp_path / "upright.png")
    np.testing.assert_array_equal(IMAGENET.load(tmp_path / "stored.png"), expected, strict=True)
    assert upright_size(tmp_path / "stored.png") == (40, 30)


def test_a_jpeg_is_turned_as_its_exif_tag_says(tmp_path):
    upright = ImageOps.pad(made_image(320, 240), (320, 480), color=(200, 0, 0), centering=(0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=100)
    assert upright_size(tmp_path / "a.jpg") == (320, 480)
    red = IMAGENET.load(tmp_path / "a.jpg")[0, 0]
    assert red[-20:].mean() - red[:20].mean() > 0.5


def test_alpha_is_dropped(tmp_path):
    plain = made_image(60, 50)
    plain.save(tmp_path / "plain.png")
    see_through = plain.convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(plain.size))
    see_through.save(tmp_path / "alpha.png")
    expected = IMAGENET.load(tmp_path / "plain.png")
    np.testing.assert_array_equal(IMAGENET.load(tmp_path / "alpha.png"), expected, strict=True)


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (30, 30), 1)
    image.putpalette([0, 0, 0, 10, 200, 30, 5, 5, 5])
    for options in ({}, {"transparency": 1}, {"transparency": bytes([255, 0, 128])}):
        image.save(tmp_path / "palette.png", **options)
        assert colours(tmp_path / "palette.png") == {(10, 200, 30)}


@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [
        ("1", 1, (255, 255, 255)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 3), (77, 77, 77)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
    ],
)
def test_other_colour_models_become_rgb(tmp_path, mode, value, colour):
    Image.new(mode, (20, 30), value).save(tmp_path / "image.tiff")
    assert colours(tmp_path / "image.tiff") == {colour}


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    path = tmp_path / f"grey.{suffix}"
    for stored, level in ((0, 0), (128, 0), (129, 1), (257, 1), (32896, 128), (65535, 255)):
        # A pixel of the full range, which the crop leaves out, says that there are 16 bits.
        Image.fromarray(np.array([[stored] * 9 + [65535]], np.uint16)).save(path)
        assert colours(path) == {(level, level, level)}


def test_a_very_wide_image_shows_its_middle(tmp_path):
    image = Image.new("RGB", (20_000, 3), (255, 0, 0))
    # The crop keeps 224 of 256 / 3 · 20,000 columns: 2.6 of the image's.
    image.paste((0, 0, 255), (9_990, 0, 10_010, 3))
    image.save(tmp_path / "wide.png")
    assert colours(tmp_path / "wide.png") == {(0, 0, 255)}


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("preprocessing", [IMAGENET, COCO], ids=["crop", "pad"])
def test_a_very_wide_image_costs_little_memory(tmp_path, preprocessing):
    Image.new("RGB", (20_000, 3)).save(tmp_path / "wide.png")
    program = f"""
import resource, sys
from PIL import Image
from splitrun.preprocessing import Preprocessing

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

Image.init()
before = peak()
{preprocessing!r}.load(sys.argv[1])
print(peak() - before)
"""
    command = [sys.executable, "-c", program, tmp_path / "wide.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Resized as a whole it would have 1.3 GB.
    assert int(done.stdout) < 64 << 10


def reason(path):
    """Why an image is refused; the error names its file."""
    with pytest.raises(ImageError) as caught:
        IMAGENET.load(path)
    assert caught.value.path == path
    return caught.value.reason


def test_a_file_that_is_no_image_is_refused(tmp_path):
    assert reason(tmp_path / "none.jpg") == "no such file or directory"
    assert reason(tmp_path) == "is a directory"
    path = tmp_path / "file.jpg"
    for content in (b"", b"%PDF-1.7 no image", bytes(1000)):
        path.write_bytes(content)
        assert reason(path).startswith("it is not an image of a known format (AVIF, BMP, ")
    path.write_bytes(b"\xff\xd8\xff")
    assert reason(path) == "its JPEG data are damaged, or of a kind that is not read"
    # Formats whose decoders raise errors of their own.
    path.write_bytes(b"DDS " + struct.pack("<18I", 124, 0, 4, 4, *[0] * 14) + bytes(52))
    assert reason(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert reason(path)
    for side in (11_000, 60_000):
        path.write_bytes(png(side, side, bytes(1000)))
        assert reason(path).startswith("it has more than 89 megapixels (")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_image_is_refused_or_gives_an_input(tmp_path_factory, suffix):
    path = tmp_path_factory.mktemp("damaged") / f"image.{suffix}"
    try:
        made_image(60, 45).save(path)
    except KeyError:
        pytest.skip(f"this Pillow was built without {suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert reason(path)
    change = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))

    # As the file stays within one test, so may its folder.
    @settings(max_examples=60, deadline=None)
    @given(st.lists(change, min_size=1, max_size=8), st.integers(len(whole) // 2, len(whole)))
    def check(changes, size):
        content = bytearray(whole)
        for place, byte in changes:
            content[place] = byte
        path.write_bytes(content[:size])
        try:
            with warnings.catch_warnings():
                # Pillow warns of metadata that it skips.
                warnings.simplefilter("ignore", UserWarning)
                loaded = IMAGENET.load(path)
        except ImageError:
            return
        assert (loaded.dtype, loaded.shape) == (np.float32, (1, 3, 224, 224))

    check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpolation": "nearest"}, "not bilinear or bicubic"),
        ({"crop": (257, 224)}, "out of a shorter side of 256"),
        ({"crop": (0, 224)}, "a crop of"),
        ({"resize": 1 << 15}, "shorter side of 32768"),
        ({"mean": (0.5, 0.5)}, "three numbers"),
        ({"std": (0.2, 0.2, 0.0)}, "above 0"),
        ({"fit": "stretch"}, "not crop or pad"),
        ({"fit": "pad", "resize": 0}, "shorter side of 0"),
        ({"fit": "pad", "crop": (800, 1 << 15)}, "a crop of"),
        ({"fit": "pad", "crop": (0, 64)}, "a crop of"),
        ({"longest": -1}, "a crop of"),
        ({"longest": 13.5}, "whole numbers"),
        ({"padding": (0.5,)}, "three numbers"),
        ({"padding": (0, 0, float("nan"))}, "not finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(IMAGENET, **changes)


def test_the_models_input_is_what_the_encoder_takes(tiny_model, photo):
    image = torch.from_numpy(tiny_model.spec.preprocessing.load(photo))
    assert tiny_model.wire_tensors(image)[0].shape[1:] == tiny_model.spec.latent_shape
