"""Images to payloads and back, through the image codecs that this machine has."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from splitrun.coding import Codec
from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import BitstreamError, DependencyError, SplitzooError, TablesError
from splitrun.images.codecs import IMAGE_CODECS

GOLDEN = Path(__file__).parents[1] / "golden" / "pixels"
LIBRARIES = ("jpeg", "webp", "avif", "heic")
LOSSY = [name for name in IMAGE_CODECS.names() if name != "png"]
# Good qualities: the image below loses less than this, root mean square, grey levels.
GOOD = {"jpeg": 90, "webp": 90, "avif": 90, "heic": 90, "bpg": 20, "vtm": 20}
GOOD_ERROR = 5
# libjpeg, libwebp, dav1d and libde265 decode to the last bit, but for the upsampling of colours.
GOLDEN_TOLERANCE = 2


def here(names=LIBRARIES):
    """Parameters for the codecs, those that are missing marked as skipped with the reason."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=reason), id=name)
        for name in names
        for reason in [IMAGE_CODECS.get(name).available()]
    ]


def made_image(height, width):
    """Smooth colours with a few edges: (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    red = 128 + 90 * np.sin(x / 9) * np.cos(y / 13)
    green = 100 + 60 * ((x // 16 + y // 24) % 2)
    blue = 255 * (x + y) / (height + width)
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return (np.stack((red, green, blue), -1) + noise).clip(0, 255).astype(np.uint8)


def planes(height, width):
    return np.ascontiguousarray(made_image(height, width).transpose(2, 0, 1))


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def saved(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


def decoded_or_refused(coder, payload, height, width):
    """What a hostile payload may come to: an array of the right form, or BitstreamError."""
    try:
        (pixels,) = coder.decode(payload, height, width)
    except BitstreamError:
        return None
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, height, width))
    return pixels


def test_the_codecs_are_those_of_the_specs():
    assert IMAGE_CODECS.names() == ["jpeg", "webp", "avif", "png", "heic", "bpg", "vtm"]
    for codec in IMAGE_CODECS:
        assert IMAGE_CODECS.get(codec.name) is codec
        assert codec.lossless == (codec.name == "png")


@pytest.mark.parametrize("name", here(LOSSY))
def test_a_image_comes_back_within_its_error(name):
    pixels = planes(96, 120)
    coder = PixelsCoder(name, GOOD[name])
    payload = coder.encode(pixels)
    (decoded,) = coder.decode(payload, 96, 120)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (3, 96, 120))
    assert decoded.flags.c_contiguous
    assert rms(decoded, pixels) < GOOD_ERROR
    assert len(payload) < pixels.size / 4


@pytest.mark.parametrize("name", here(LOSSY))
def test_better_qualities_are_larger_and_closer(name):
    pixels = planes(96, 120)
    sizes, errors = [], []
    qualities = IMAGE_CODECS.get(name).qualities
    for quality in qualities[len(qualities) // 10 :: len(qualities) // 5]:
        coder = PixelsCoder(name, quality)
        payload = coder.encode(pixels)
        sizes.append(len(payload))
        errors.append(rms(coder.decode(payload, 96, 120)[0], pixels))
    assert len(sizes) >= 5
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


@pytest.mark.parametrize("name", here(LOSSY))
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (7, 5), (65, 130)])
def test_odd_shapes_come_back(name, shape):
    pixels = planes(*shape)
    coder = PixelsCoder(name, GOOD[name])
    (decoded,) = coder.decode(coder.encode(pixels), *shape)
    assert decoded.shape == (3, *shape)
    assert rms(decoded, pixels) < 12


@pytest.mark.parametrize("name", here(LOSSY))
def test_grey_images_come_back_grey(name):
    codec = IMAGE_CODECS.get(name)
    grey = made_image(64, 80)[..., 0]
    decoded = codec.decode(codec.encode(grey, GOOD[name]), 64, 80, 1)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (64, 80))
    assert rms(decoded, grey) < GOOD_ERROR


@pytest.mark.parametrize("quality", [0, 1, 10, 50, 75, 90, 95, 100])
@pytest.mark.parametrize(("name", "pillow"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_files_and_pixels_are_those_of_plain_pillow(name, pillow, quality):
    # sc2bench's PILImageModule(format=…, quality=…) is this call of save.
    for shape in [(64, 80), (37, 51)]:
        pixels = made_image(*shape)
        expected = saved(pixels, format=pillow, quality=quality)
        codec = IMAGE_CODECS.get(name)
        assert codec.encode(pixels, quality) == expected
        with Image.open(io.BytesIO(expected)) as opened:
            reference = np.asarray(opened)
        np.testing.assert_array_equal(codec.decode(expected, *shape, 3), reference, strict=True)


@pytest.mark.parametrize(
    ("name", "shape"), [("jpeg", (1, 65_501)), ("webp", (16_384, 1)), ("avif", (1, 32_769))]
)
def test_images_beyond_a_format_are_refused(name, shape, capfd):
    with pytest.raises(SplitzooError, match=f"cannot be coded as {name}: sides of 1 to"):
        PixelsCoder(name, 50).encode(np.zeros((3, *shape), np.uint8))
    assert capfd.readouterr() == ("", "")  # libjpeg would print its own complaint


@pytest.mark.parametrize("name", here(["heic"]))
def test_a_image_that_an_encoder_refuses_is_an_error_of_ours(name):
    with pytest.raises(SplitzooError, match="could not be coded as heic"):
        PixelsCoder(name, 50).encode(np.zeros((3, 1, 8192), np.uint8))


def test_only_bytes_are_pixels():
    with pytest.raises(TypeError, match="Cannot cast"):
        PixelsCoder("jpeg", 50).encode(np.zeros((3, 8, 8), np.float32))


@pytest.mark.parametrize("name", here())
def test_every_truncation_is_refused(name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(24, 40))
    for size in range(len(payload)):
        with pytest.raises(BitstreamError):
            coder.decode(payload[:size], 24, 40)


@pytest.mark.parametrize("name", here())
def test_bytes_after_the_end_are_refused(name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(24, 40))
    for more in (b"\0", b"\xff\xd9", payload):
        with pytest.raises(BitstreamError):
            coder.decode(payload + more, 24, 40)


@pytest.mark.parametrize("name", here())
def test_damaged_payloads_are_refused_or_images(name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(24, 40))
    rng = np.random.default_rng(0)
    refused = 0
    for place in [*range(min(len(payload), 400)), *rng.integers(0, len(payload), 200)]:
        damaged = bytearray(payload)
        damaged[place] ^= rng.integers(1, 256)
        refused += decoded_or_refused(coder, bytes(damaged), 24, 40) is None
    assert refused > 10


@pytest.mark.parametrize("name", here())
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_are_refused_or_images(name, data):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    start = data.draw(st.integers(0, len(payload)))
    made = payload[:start] + data.draw(st.binary(max_size=80)) + payload[-start:]
    decoded_or_refused(coder, made, 8, 8)
    with pytest.raises(BitstreamError):
        coder.decode(data.draw(st.binary(max_size=80)), 8, 8)


@pytest.mark.parametrize("name", here())
def test_images_of_other_shape_are_refused(name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(64, 64))
    for shape in [(63, 64), (64, 65), (1, 1), (128, 128)]:
        with pytest.raises(BitstreamError, match="claims 64×64 pixels"):
            coder.decode(payload, *shape)


@pytest.mark.parametrize("name", here())
def test_images_of_other_formats_are_refused(name):
    pixels = made_image(24, 40)
    others = [IMAGE_CODECS.get(other.values[0]).encode(pixels, 50) for other in here()]
    others += [saved(pixels, format=form) for form in ("PNG", "BMP", "TIFF", "GIF", "PPM", "TGA")]
    coder = PixelsCoder(name, 50)
    refused = 0
    for payload in others:
        try:
            coder.decode(payload, 24, 40)
        except BitstreamError:
            refused += 1
    assert refused == len(others) - 1


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    length, check = struct.pack(">I", len(header)), struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + check


def claiming(name, height, width):
    """A small image whose header claims another size."""
    payload = PixelsCoder(name, 30).encode(planes(64, 64))
    sides = {
        "jpeg": (b"\xff\xc0\0\x11\x08", ">HH", (64, 64), (height, width)),
        "webp": (b"\x9d\x01\x2a", "<HH", (64, 64), (width, height)),
        "avif": (b"ispe\0\0\0\0", ">II", (64, 64), (width, height)),
        "heic": (b"ispe\0\0\0\0", ">II", (64, 64), (width, height)),
    }
    before, form, true, claimed = sides[name]
    assert payload.count(before + struct.pack(form, *true)) == 1
    return payload.replace(before + struct.pack(form, *true), before + struct.pack(form, *claimed))


@pytest.fixture
def no_decoder(monkeypatch):
    """Fail where a decoder is called at all."""

    def called(*_arguments, **_options):
        raise AssertionError("a decoder was called")

    monkeypatch.setattr(Image, "open", called)
    if not IMAGE_CODECS.get("heic").available():
        monkeypatch.setattr("pillow_heif.open_heif", called)


@pytest.mark.parametrize("name", here())
def test_a_header_that_claims_too_much_never_reaches_a_decoder(no_decoder, name):
    most = 16_383 if name == "webp" else 60_000
    for payload in (claiming(name, most, most), png_header(60_000, 60_000)):
        with pytest.raises(BitstreamError):
            PixelsCoder(name, 50).decode(payload, 64, 64)


@pytest.mark.parametrize("name", here(["avif", "heic"]))
def test_a_container_that_claims_less_than_its_data_never_reaches_a_decoder(no_decoder, name):
    # A decoder would allocate the larger one.
    payload = IMAGE_CODECS.get(name).encode(np.zeros((512, 512, 3), np.uint8), 10)
    large, small = struct.pack(">II", 512, 512), struct.pack(">II", 64, 64)
    assert payload.count(b"ispe\0\0\0\0" + large) == 1
    payload = payload.replace(b"ispe\0\0\0\0" + large, b"ispe\0\0\0\0" + small)
    with pytest.raises(BitstreamError, match="claims 512×512 pixels"):
        PixelsCoder(name, 50).decode(payload, 64, 64)


def test_a_jpeg_of_several_scans_never_reaches_a_decoder(no_decoder):
    # Each scan costs a decoder one pass over the image, and a scan may have a few bytes.
    pixels = made_image(64, 64)
    baseline = saved(pixels, format="JPEG")
    scan = baseline[baseline.index(b"\xff\xda") : -2]
    for payload in (
        saved(pixels, format="JPEG", progressive=True),
        baseline[:-2] + scan + b"\xff\xd9",
        baseline.replace(scan[:5], b"\xff\xda\0\x0c\1"),
        saved(pixels, format="JPEG", restart_marker_blocks=1),
    ):
        with pytest.raises(BitstreamError):
            PixelsCoder("jpeg", 50).decode(payload, 64, 64)


def test_jpegs_of_other_channels_and_depths_are_refused():
    codec = IMAGE_CODECS.get("jpeg")
    colour, grey = (
        codec.encode(made_image(24, 40), 50),
        codec.encode(made_image(24, 40)[..., 0], 50),
    )
    cmyk = io.BytesIO()
    Image.fromarray(made_image(24, 40)).convert("CMYK").save(cmyk, format="JPEG")
    deep = colour.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
    for payload, channels in [(colour, 1), (grey, 3), (cmyk.getvalue(), 3), (deep, 3)]:
        with pytest.raises(BitstreamError):
            codec.decode(payload, 24, 40, channels)


@pytest.mark.parametrize(
    "options",
    [{"lossless": True}, {"exif": b"Exif\0\0MM\0*"}, {"save_all": True}],
    ids=["lossless", "metadata", "animation"],
)
def test_webps_of_other_forms_never_reach_a_decoder(no_decoder, options):
    if options.get("save_all"):
        options = {**options, "append_images": [Image.new("RGB", (40, 24))]}
    payload = saved(made_image(24, 40), format="WEBP", **options)
    with pytest.raises(BitstreamError):
        PixelsCoder("webp", 50).decode(payload, 24, 40)


@pytest.mark.parametrize("name", here(["avif"]))
def test_avifs_of_other_forms_never_reach_a_decoder(no_decoder, name):
    pixels = made_image(64, 64)
    see_through = np.dstack((pixels, pixels[..., 0]))
    for payload in (
        saved(see_through, format="AVIF"),
        saved(pixels, format="AVIF", save_all=True, append_images=[Image.new("RGB", (64, 64))]),
        saved(pixels, format="AVIF", xmp=b"<x/>"),
    ):
        with pytest.raises(BitstreamError):
            PixelsCoder(name, 50).decode(payload, 64, 64)


@pytest.mark.parametrize("name", here(["heic"]))
def test_heics_of_other_forms_never_reach_a_decoder(no_decoder, name):
    import pillow_heif

    pixels = made_image(64, 64)
    see_through = pillow_heif.from_pillow(Image.fromarray(np.dstack((pixels, pixels[..., 0]))))
    two = pillow_heif.from_pillow(Image.fromarray(pixels))
    two.add_from_pillow(Image.new("RGB", (64, 64)))
    for file in (see_through, two):
        payload = io.BytesIO()
        file.save(payload, quality=50)
        with pytest.raises(BitstreamError):
            PixelsCoder(name, 50).decode(payload.getvalue(), 64, 64)


def with_item(payload, data):
    """An AVIF or HEIC file whose only item, the last box, holds other data."""
    start = payload.index(b"mdat") + 4
    old, new = (struct.pack(">I", len(item)) for item in (payload[start:], data))
    head = payload[: start - 8]
    assert head.count(old) == 1
    return head.replace(old, new) + struct.pack(">I", len(data) + 8) + b"mdat" + data


def parts_of(payload, name):
    """The AV1 units of an AVIF file's item, or the HEVC units of a HEIC file's."""
    data = payload[payload.index(b"mdat") + 4 :]
    if name == "heic":
        return [data]
    cut = 4 + data[3]  # behind the delimiter and the sequence header
    return [data[:2], data[2:cut], data[cut:]]


@pytest.mark.parametrize("name", here(["avif", "heic"]))
def test_items_of_several_images_never_reach_a_decoder(no_decoder, name):
    payload = PixelsCoder(name, 30).encode(planes(64, 64))
    parts = parts_of(payload, name)
    assert with_item(payload, b"".join(parts)) == payload
    foreign = b"\0\0\0\3" + bytes([33 << 1, 1, 0])  # parameters beside the image
    for data in (
        [*parts, parts[-1]],
        [*parts[:-1], parts[-1] * 3],
        [*parts[:-1]],
        [*parts, foreign],
        [foreign, *parts],
        [*parts, *parts],
    ):
        with pytest.raises(BitstreamError):
            PixelsCoder(name, 50).decode(with_item(payload, b"".join(data)), 64, 64)


@pytest.mark.parametrize("name", here(["avif", "heic"]))
def test_items_that_lie_elsewhere_never_reach_a_decoder(no_decoder, name):
    # Else what is checked would not be what is decoded.
    payload = PixelsCoder(name, 30).encode(planes(64, 64))
    start = struct.pack(">I", payload.index(b"mdat") + 4)
    assert payload.count(start) == 1
    for elsewhere in (0, 1, 1 << 31):
        with pytest.raises(BitstreamError):
            PixelsCoder(name, 50).decode(
                payload.replace(start, struct.pack(">I", elsewhere)), 64, 64
            )


def test_heic_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    codec = IMAGE_CODECS.get("heic")
    assert codec.available() == "HEIC needs the package pillow-heif, which is not installed."
    for use in (
        lambda: codec.encode(made_image(8, 8), 50),
        lambda: codec.decode(b"", 8, 8, 3),
    ):
        with pytest.raises(DependencyError) as caught:
            use()
        assert caught.value.next_step == "pip install pillow-heif"


def test_a_pillow_without_avif_says_so(monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.SAVE, "AVIF", raising=False)
    codec = IMAGE_CODECS.get("avif")
    assert codec.available() == "This Pillow was built without AVIF."
    for use in (lambda: codec.encode(made_image(8, 8), 50), lambda: codec.decode(b"", 8, 8, 3)):
        with pytest.raises(DependencyError) as caught:
            use()
        assert "pip install" in caught.value.next_step


@pytest.mark.parametrize("name", here())
def test_a_image_goes_through_a_stream(name):
    pixels = planes(24, 40)
    codec = Codec(PixelsCoder(name, 80), b"\1\2\3\4", (224, 224))
    stream = codec.compress(pixels)
    (decoded,) = codec.decompress(stream)
    assert len(stream) == len(codec.coder.encode(pixels)) + 16
    assert decoded.shape == pixels.shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (65, 130)])
def test_png_loses_nothing(shape):
    coder = PixelsCoder("png", 100)
    pixels = planes(*shape)
    (decoded,) = coder.decode(coder.encode(pixels), *shape)
    np.testing.assert_array_equal(decoded, pixels, strict=True)
    grey = pixels[0]
    codec = IMAGE_CODECS.get("png")
    np.testing.assert_array_equal(codec.decode(codec.encode(grey, 100), *shape, 1), grey)
    with pytest.raises(TablesError, match="png has no quality 90"):
        PixelsCoder("png", 90)


def test_png_of_another_form_is_refused_before_it_is_decoded():
    coder = PixelsCoder("png", 100)
    good = coder.encode(planes(16, 24))
    header = good.index(b"IHDR")
    for change in (
        good[:20],
        good[:-1],
        good + b"\0",
        good[: header + 4] + struct.pack(">I", 1 << 30) + good[header + 8 :],
        good[: header + 16] + b"\x01" + good[header + 17 :],  # interlaced, or of other colours
        saved(made_image(16, 24), format="PNG", pnginfo=_text()),
        saved(made_image(16, 24)[..., 0], format="PNG"),
    ):
        with pytest.raises(BitstreamError):
            coder.decode(change, 16, 24)
    with pytest.raises(BitstreamError, match="claims 16×24"):
        coder.decode(good, 24, 16)


def _text():
    info = PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    return info


# Encoders change between versions of the libraries, so only decoding is held to these.
@pytest.mark.parametrize("name", here())
def test_golden_payloads_are_read_as_ever(request, name):
    path = GOLDEN / f"{name}.npz"
    if request.config.getoption("rewrite_golden"):
        coder = PixelsCoder(name, 60)
        payload = coder.encode(planes(24, 40))
        (decoded,) = coder.decode(payload, 24, 40)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, payload=np.frombuffer(payload, np.uint8), decoded=decoded)
    with np.load(path) as golden:
        payload, expected = golden["payload"].tobytes(), golden["decoded"]
    (decoded,) = PixelsCoder(name, 60).decode(payload, *expected.shape[1:])
    assert np.abs(decoded.astype(int) - expected).max() <= GOLDEN_TOLERANCE
    assert rms(expected, planes(24, 40)) < 15
