"""BPG and VTM through stand-ins for their programs: what these are given, and what they give back.

The real programs are tried in ``test_coding_images`` where they are on PATH.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in_programs import (
    BPGDEC,
    BPGENC,
    PREAMBLE,
    PROGRAMS,
    SOURCES,
    VTMDEC,
    VTMENC,
    planes,
    told,
    write_program,
)

from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import BitstreamError, DependencyError
from splitrun.images.codecs import IMAGE_CODECS
from splitrun.images.external_codecs import rgb_to_ycbcr, ycbcr_to_rgb
from splitrun.images.headers import check_bpg


def test_bpg_gets_the_pixels_themselves(programs):
    # sc2bench writes a JPEG first, and so loses twice.
    pixels = planes(37, 200)
    coder = PixelsCoder("bpg", 33)
    payload = coder.encode(pixels)
    (decoded,) = coder.decode(payload, 37, 200)
    np.testing.assert_array_equal(decoded, pixels, strict=True)
    assert told(programs, BPGENC)["arguments"] == [
        *("-o", "coded.bpg", "-q", "33", "-f", "444", "-e", "x265", "-c", "ycbcr", "-b", "8"),
        "pixels.png",
    ]
    assert told(programs, BPGDEC)["arguments"] == ["-o", "pixels.png", "coded.bpg"]


@pytest.mark.parametrize(
    ("built_with", "taken"),
    [("jctvc", "jctvc"), ("x265", "x265"), ("x265 jctvc", "x265"), ("jctvc x265", "x265")],
)
def test_bpg_is_asked_for_an_encoder_that_it_has(programs, built_with, taken):
    source = f"#!{sys.executable} -IS\n{PREAMBLE}{SOURCES[BPGENC]}"
    (programs / BPGENC).write_text(source.replace("x265 jctvc, default = x265", f"{built_with}, x"))
    codec = IMAGE_CODECS.get("bpg")
    assert codec.available() == ""
    assert codec.versions() == {"bpgenc": f"0.9.8, {taken}"}
    PixelsCoder("bpg", 33).encode(planes(8, 8))
    arguments = told(programs, BPGENC)["arguments"]
    assert arguments[arguments.index("-e") + 1] == taken


# What bpgenc 0.9.8 with JCTVC's encoder made, and bpgdec read: see README.md there.
RECORDED = Path(__file__).parents[1] / "golden" / "bpg"


def test_a_stream_of_the_real_bpgenc_is_read(programs):
    data, decoded = ((RECORDED / f"jctvc.{kind}").read_bytes() for kind in ("bpg", "png"))
    # By the format's specification: 4:4:4, no alpha, 8 bits; YCbCr, no extension; 200×24 in groups
    # of 7 bits; length 0, which is up to the end.
    assert data[:10] == b"BPG\xfb" + bytes([0b011_0_0000, 0, 0x81, 0x48, 24, 0])
    check_bpg(data, 24, 200, 3)
    for height, width in ((24, 199), (200, 24)):
        with pytest.raises(BitstreamError, match="claims 24×200"):
            check_bpg(data, height, width, 3)
    write_program(
        programs,
        BPGDEC,
        f"assert open(arguments[-1], 'rb').read() == {data!r}\n"
        f"open(after('-o'), 'wb').write({decoded!r})",
    )
    (pixels,) = PixelsCoder("bpg", 30).decode(data, 24, 200)
    y, x = np.mgrid[:24, :200]
    made = np.stack((x + 2 * y, 255 - x, 128 + 60 * np.sin(x / 9) * np.cos(y / 7)))
    assert np.sqrt(np.mean((pixels - made.clip(0, 255)) ** 2)) < 6


@pytest.mark.skipif(not shutil.which(BPGDEC), reason="bpgdec is not on PATH")
def test_the_real_bpgdec_reads_the_recorded_stream():
    with Image.open(RECORDED / "jctvc.png") as image:
        expected = np.array(image.convert("RGB")).transpose(2, 0, 1)
    (pixels,) = PixelsCoder("bpg", 30).decode((RECORDED / "jctvc.bpg").read_bytes(), 24, 200)
    np.testing.assert_array_equal(pixels, expected)


def test_vtm_gets_whole_units_of_444_planes(programs, tmp_path):
    pixels = planes(37, 50)
    coder = PixelsCoder("vtm", 41)
    payload = coder.encode(pixels)
    assert len(payload) == 4 + 3 * 40 * 56
    (decoded,) = coder.decode(payload, 37, 50)
    # Nothing but the rounding of YCbCr.
    assert np.abs(decoded.astype(int) - pixels).max() <= 2
    assert told(programs, VTMENC)["arguments"] == [
        *("-i", "pixels.yuv", "-c", str(tmp_path / "intra.cfg"), "-q", "41", "-o", os.devnull),
        *("-b", "coded.bin", "-wdt", "56", "-hgt", "40", "-fr", "1", "-f", "1"),
        *("--InputChromaFormat=444", "--InputBitDepth=8"),
    ]
    assert told(programs, VTMDEC)["arguments"] == [
        *("-b", "coded.bin", "-o", "pixels.yuv", "-d", "8")
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_grey_goes_as_equal_colours(programs, name):
    grey = planes(24, 32)[0]
    codec = IMAGE_CODECS.get(name)
    np.testing.assert_array_equal(
        codec.decode(codec.encode(grey, 30), 24, 32, 1), grey, strict=True
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_run_in_a_folder_of_their_own(programs, name):
    coder = PixelsCoder(name, 30)
    coder.decode(coder.encode(planes(8, 8)), 8, 8)
    first, second = (Path(told(programs, program)["folder"]) for program in PROGRAMS[name])
    assert first != second
    assert {first.parent, second.parent} == {Path(tempfile.gettempdir())}
    assert not first.exists()


def test_qualities_are_those_of_the_programs():
    assert IMAGE_CODECS.get("bpg").qualities == range(51, -1, -1)
    assert IMAGE_CODECS.get("vtm").qualities == range(63, -1, -1)


def test_vtm_finds_the_configuration_in_its_source_tree(programs, tmp_path, monkeypatch):
    monkeypatch.delenv("SPLITZOO_VTM_CONFIG")
    codec = IMAGE_CODECS.get("vtm")
    assert "SPLITZOO_VTM_CONFIG is not set" in codec.available()
    with pytest.raises(DependencyError, match="SPLITZOO_VTM_CONFIG is not set") as caught:
        codec.encode(np.zeros((8, 8, 3), np.uint8), 30)
    assert "cfg/encoder_intra_vtm.cfg" in caught.value.next_step
    config = tmp_path / "cfg" / "encoder_intra_vtm.cfg"  # beside bin/
    config.parent.mkdir()
    config.write_text("")
    assert codec.available() == ""
    codec.encode(np.zeros((8, 8, 3), np.uint8), 30)
    assert told(programs, VTMENC)["arguments"][3] == str(config)


def bpg(width, height, *, form=b"\x60\0", length=b"\0", rest=b"x"):
    """A BPG header whose sides are given as bytes."""
    return b"BPG\xfb" + form + width + height + length + rest


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        pytest.param(b"", "is cut short", id="nothing"),
        pytest.param(b"BPG\xfb\x60", "is cut short", id="five bytes"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "no BPG image", id="another format"),
        pytest.param(bpg(b"\x08", b"\x09"), "claims 9×8 pixels", id="another size"),
        pytest.param(bpg(b"\x83\xd4\x60", b"\x83\xd4\x60"), "claims 60000×60000", id="huge"),
        pytest.param(bpg(b"\xff" * 6, b"\x08"), "no BPG image", id="endless number"),
        pytest.param(bpg(b"\x08", b"\x88"), "is cut short|claims", id="number cut short"),
        pytest.param(bpg(b"\x08", b"\x08", form=b"\x20\0"), "is not 4:4:4", id="4:2:0"),
        pytest.param(bpg(b"\x08", b"\x08", form=b"\x70\0"), "is not 4:4:4", id="transparency"),
        pytest.param(bpg(b"\x08", b"\x08", form=b"\x62\0"), "is not 4:4:4", id="10 bits"),
        pytest.param(bpg(b"\x08", b"\x08", form=b"\x60\x01"), "is not 4:4:4", id="animation"),
        pytest.param(bpg(b"\x08", b"\x08", form=b"\x60\x08"), "extensions", id="extensions"),
        pytest.param(bpg(b"\x08", b"\x08", length=b"\5"), "cut short, or has", id="wrong length"),
    ],
)
def test_headers_of_other_form_never_reach_bpgdec(programs, payload, message):
    with pytest.raises(BitstreamError, match=message):
        PixelsCoder("bpg", 30).decode(payload, 8, 8)
    assert not (programs / f"{BPGDEC}.json").exists()


def test_a_bpg_whose_length_is_given_is_read(programs):
    payload = PixelsCoder("bpg", 30).encode(planes(8, 8))
    head, image = payload[:8], payload[9:]
    length = bytes([0x80 | len(image) >> 7, len(image) & 0x7F])
    (decoded,) = PixelsCoder("bpg", 30).decode(head + length + image, 8, 8)
    np.testing.assert_array_equal(decoded, planes(8, 8))


def test_colours_are_those_of_bt_709():
    rgb = np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3, [77] * 3]], np.uint8
    )
    luma, blue, red = rgb_to_ycbcr(rgb)[:, 0].tolist()
    assert luma == [54, 182, 18, 255, 0, 77]
    assert blue == [99, 30, 255, 128, 128, 128]
    assert red == [255, 12, 116, 128, 128, 128]
    assert rgb_to_ycbcr(rgb).dtype == np.uint8
    assert np.abs(ycbcr_to_rgb(rgb_to_ycbcr(rgb)).astype(int) - rgb).max() <= 1


def test_no_shell_is_asked(programs, monkeypatch):
    shells = []
    popen = subprocess.Popen

    def watched(command, **options):
        shells.append(options.get("shell", False))
        assert isinstance(command, list)
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    PixelsCoder("bpg", 30).encode(planes(8, 8))
    assert shells == [False, False]  # its help, and the image
