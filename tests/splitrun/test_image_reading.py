import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image
from preprocessings import IMAGENET, made_image

from splitrun.errors import ImageError, SplitzooError
from splitrun.image_reading import LIMIT_VARIABLE, check_image, read_rgb, upright_size

LEVELS = np.asarray(made_image(40, 30)).astype(np.uint32)


def pixels(image):
    return np.asarray(read_rgb(image)).astype(int)


def refusal(image):
    with pytest.raises(ImageError) as caught:
        read_rgb(image)
    return caught.value


def with_alpha(values):
    return np.concatenate((values, np.full((*values.shape[:2], 1), 65535)), axis=2)


def png16(values):
    """A PNG of 16 bits, which Pillow does not write in colours: PNG specification, Section 11."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff16(values, order="<", compression=1):
    """A TIFF of 16 bits in colours: TIFF 6.0, Section 2."""
    height, width, channels = values.shape
    data = values.astype(order + "u2").tobytes()
    data = zlib.compress(data) if compression == 8 else data
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    tags = {256: (4, width), 257: (4, height), 258: (3, None), 259: (3, compression), 262: (3, 2)}
    tags |= {273: (4, None), 277: (3, channels), 278: (4, height), 279: (4, len(data)), 284: (3, 1)}
    tags |= {338: (3, 2)} if channels == 4 else {}
    tags[258] = (3, 8 + 2 + 12 * len(tags) + 4)
    tags[273] = (4, tags[258][1] + len(bits))
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, channels if tag == 258 else 1)
        + struct.pack(order + ("I" if kind == 4 or tag == 258 else "H2x"), value)
        for tag, (kind, value) in tags.items()
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return start + entries + bytes(4) + bits + data


# The levels are known; each file holds them in some bits of the 16 that it has room for.
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bits_that_hold_fewer_are_scaled_by_those(tmp_path, bits):
    values = LEVELS * ((1 << bits) - 1) // 255
    grey = values[..., :1]
    for suffix in ("png", "tif"):
        path = tmp_path / f"grey.{suffix}"
        Image.fromarray(grey[..., 0].astype(np.uint16)).save(path)
        assert np.abs(pixels(path) - LEVELS[..., :1]).max() <= 1
    Image.fromarray(grey[..., 0].astype(np.int32)).save(tmp_path / "int32.tif")
    assert np.abs(pixels(tmp_path / "int32.tif") - LEVELS[..., :1]).max() <= 1
    assert np.abs(pixels(grey[..., 0].astype(np.uint16)) - LEVELS[..., :1]).max() <= 1
    colours = (
        *(png16(values), png16(with_alpha(values)), tiff16(values), tiff16(with_alpha(values))),
        *(tiff16(values, ">"), tiff16(values, "<", 8), tiff16(values, ">", 8)),
    )
    for content in colours:
        for given in (content, io.BytesIO(content)):
            assert np.abs(pixels(given) - LEVELS).max() <= 1
    assert np.abs(pixels(png16(with_alpha(grey))) - LEVELS[..., :1]).max() <= 1
    assert np.abs(pixels(values.astype(np.uint16)) - LEVELS).max() <= 1


def test_a_format_that_says_its_range_is_scaled_by_that():
    # PGM's header: 4,095 is white. 1,000 is 62.3 of 255, though 10 bits would hold it.
    content = b"P5 2 1 4095\n" + struct.pack(">HH", 1000, 0)
    assert pixels(content)[0, :, 0].tolist() == [62, 0]


def test_floating_point_goes_from_0_to_1(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray((LEVELS[..., 0] / 255).astype(np.float32)).save(path)
    np.testing.assert_array_equal(pixels(path), np.repeat(LEVELS[..., :1], 3, 2))
    for low, high in ((0, 255), (-0.1, 1), (0, float("nan"))):
        Image.fromarray(np.array([[low, high]], np.float32)).save(path)
        error = refusal(path)
        assert error.reason.startswith("its values are out of range (they go from ")
        assert error.next_step == "Scale them, and save the image again."
    Image.fromarray(np.array([[-1, 70000]], np.int32)).save(path)
    assert "-1 to 70000; whole numbers of 0 to 65,535 are read" in refusal(path).reason


def test_the_first_image_of_several_is_read(tmp_path):
    first, second = (Image.new("RGB", (20, 30), colour) for colour in ("red", "blue"))
    for suffix in ("gif", "png", "webp", "avif", "tif"):
        path = tmp_path / f"moving.{suffix}"
        first.save(path, save_all=True, append_images=[second])
        assert np.abs(pixels(path) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_image_that_is_read(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    made_image(40, 30).save(path, exif=exif)
    # EXIF 2.32, tag 0x0112: 5 to 8 exchange rows and columns.
    assert upright_size(path) == read_rgb(path).size == ((30, 40) if orientation > 4 else (40, 30))


def test_heic_is_read(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    path = tmp_path / "photo.jpg"  # formats are told by their content
    red = Image.new("RGB", (64, 48), (200, 40, 30))
    heif.from_pillow(red).save(path, format="HEIF")
    assert np.abs(pixels(path) - (200, 40, 30)).max() <= 4
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert refusal(path).reason == "HEIC needs the package pillow-heif, which is not installed"
    assert refusal(path.read_bytes()).next_step == "pip install pillow-heif"


def test_formats_without_a_signature_are_told_by_the_name(tmp_path):
    for suffix in ("tga", "dib"):
        made_image(40, 30).save(tmp_path / f"image.{suffix}")
        np.testing.assert_array_equal(pixels(tmp_path / f"image.{suffix}"), LEVELS)
        renamed = (tmp_path / f"image.{suffix}").rename(tmp_path / "image.jpg")
        assert refusal(renamed).reason.startswith("it is not an image of a known format (")


@pytest.mark.parametrize(
    "array",
    [
        LEVELS.astype(np.uint8),
        np.dstack((LEVELS, LEVELS[..., 0])).astype(np.uint8),
        (LEVELS / 255).astype(np.float32),
    ],
    ids=["RGB", "RGBA", "float"],
)
def test_arrays_are_read(array):
    np.testing.assert_array_equal(pixels(array), LEVELS)
    np.testing.assert_array_equal(pixels(array[..., 0]), pixels(array[..., :1]))


@pytest.mark.parametrize("shape", [(3, 40, 30), (1, 40, 30, 3), (40,), (0, 3, 3), (4, 5, 2)])
def test_arrays_of_other_shapes_are_refused_by_their_shape(shape):
    reason = refusal(np.zeros(shape, np.uint8)).reason
    assert reason == f"it is uint8 {shape}, not uint8 (H, W, 3)"


def test_files_that_are_open_are_read(tmp_path):
    made_image(40, 30).save(tmp_path / "image.png")
    with (tmp_path / "image.png").open("rb") as file:
        np.testing.assert_array_equal(pixels(file), LEVELS)
    assert refusal(3).reason.startswith("it is not a path, bytes, an open file, ")


def test_pipes_are_read(tmp_path):
    posix = pytest.importorskip("posix", reason="needs pipes of POSIX")
    made_image(40, 30).save(tmp_path / "image.png")
    posix.mkfifo(tmp_path / "pipe")
    content = (tmp_path / "image.png").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content])
    writer.start()
    np.testing.assert_array_equal(pixels(tmp_path / "pipe"), LEVELS)
    writer.join()


def test_the_limit_can_be_moved(tmp_path, monkeypatch):
    for suffix in ("png", "jpg"):
        made_image(400, 300).save(tmp_path / f"image.{suffix}")
    monkeypatch.setenv(LIMIT_VARIABLE, "0.11")
    error = refusal(tmp_path / "image.png")
    assert error.reason == "it has more than 0 megapixels (400×300 pixels)"
    assert f"{LIMIT_VARIABLE}=1" in error.next_step
    assert read_rgb(tmp_path / "image.jpg").size == (200, 150)
    assert upright_size(tmp_path / "image.jpg") == (400, 300)
    monkeypatch.setenv(LIMIT_VARIABLE, "0.001")  # no eighth is as small as that
    assert "400×300" in refusal(tmp_path / "image.jpg").reason
    monkeypatch.setenv(LIMIT_VARIABLE, "0.12")
    check_image(tmp_path / "image.png")
    for wrong in ("many", "-1", "0", "nan", "inf"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(SplitzooError, match="of megapixels"):
            check_image(tmp_path / "image.png")


PROGRAM = """
import resource, sys
from PIL import Image
from splitrun.errors import ImageError
from splitrun.image_reading import read_rgb

Image.init()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
try:
    print(*read_rgb(sys.argv[1]).size)
except ImageError as error:
    print(error)
print(peak() - before)
"""


def read_apart(path):
    """What came of an image in a process of its own, and the memory that it took, MiB."""
    command = [sys.executable, "-c", PROGRAM, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said, peak = done.stdout.rsplit("\n", 2)[:2]
    return said, int(peak) >> 10


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_a_phone_is_decoded_at_a_smaller_scale(tmp_path, progressive):
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (12_000, 9_000), (200, 100, 50)).save(path, progressive=progressive)
    said, peak = read_apart(path)
    assert said == "6000 4500"
    # 81 MB of pixels; the coefficients of all scans are 2 bytes each, at 4:2:0.
    assert peak < 150 + (320 if progressive else 0)


def claiming(content, width, height):
    """A JPEG whose frame header claims another size: ITU-T T.81, Section B.2.2."""
    place = next(content.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in content)
    return content[: place + 5] + struct.pack(">HH", height, width) + content[place + 9 :]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_claims_to_be_huge_costs_little(tmp_path, progressive):
    made_image(64, 64).save(tmp_path / "small.jpg", progressive=progressive)
    path = tmp_path / "huge.jpg"
    path.write_bytes(claiming((tmp_path / "small.jpg").read_bytes(), 65_500, 65_500))
    said, peak = read_apart(path)
    assert ("65,500×65,500" if progressive else "JPEG data are too few for its size") in said
    assert peak < 300


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path):
    path = tmp_path / "scans.jpg"
    made_image(64, 64).save(path, progressive=True)
    content = path.read_bytes()
    last = content[content.rfind(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + 5000 * last + content[-2:])
    assert refusal(path).reason == "its JPEG data have more than 100 scans"


def test_a_file_too_large_to_hold_is_refused(tmp_path):
    made_image(40, 30).save(tmp_path / "image.webp")
    os.truncate(tmp_path / "image.webp", (1 << 30) + 1)
    assert refusal(tmp_path / "image.webp").reason == "its file has more than 1 GiB"


def test_errors_survive_the_way_from_another_process():
    error = ImageError("a.jpg", "it is damaged", next_step="Repair it.")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.reason, again.next_step) == ("a.jpg", "it is damaged", "Repair it.")
    assert str(again) == str(error)


def test_other_colours_are_named(tmp_path):
    Image.new("LAB", (20, 30)).save(tmp_path / "lab.tif")
    assert refusal(tmp_path / "lab.tif").reason == "its colours are CIELAB's, which are not read"
    assert IMAGENET.load(made_image(20, 30).convert("HSV")).shape == (1, 3, 224, 224)
