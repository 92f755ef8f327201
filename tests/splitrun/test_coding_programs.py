"""BPG and VTM through stand-ins for their programs: what these are asked, and what they may do.

The real programs are tried in ``test_coding_images`` where they are on PATH.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import BitstreamError, DependencyError, SplitzooError
from splitrun.images.codecs import IMAGE_CODECS
from splitrun.images.external_codecs import BpgCodec, TimeLimit, rgb_to_ycbcr, ycbcr_to_rgb
from splitrun.images.headers import check_bpg

BPGENC, BPGDEC = "bpgenc", "bpgdec"
VTMENC, VTMDEC = "EncoderAppStatic", "DecoderAppStatic"
PROGRAMS = {"bpg": (BPGENC, BPGDEC), "vtm": (VTMENC, VTMDEC)}

# Each writes down what it was given, and codes without loss: a BPG header and the PNG behind it, or
# the raw planes with the frame's size before them.
PREAMBLE = """
import json, os, struct, sys
arguments = sys.argv[1:]
if arguments == ["-h"]:  # what libbpg 0.9.8 prints, and how it ends
    print("BPG Image Encoder version 0.9.8\\nusage: bpgenc [options] infile.[jpg|png]")
    print("-e encoder           select the HEVC encoder (x265 jctvc, default = x265)")
    sys.exit(1)
def after(option):
    return arguments[arguments.index(option) + 1]
def noted():
    name = os.path.basename(sys.argv[0]) + ".json"
    with open(os.path.join(os.path.dirname(sys.argv[0]), name), "w") as file:
        json.dump({"arguments": arguments, "folder": os.getcwd()}, file)
noted()
"""
SOURCES = {
    BPGENC: """
data = open(arguments[-1], "rb").read()
width, height = struct.unpack(">II", data[16:24])
def ue7(number):
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127 | 128)
    return bytes(reversed(groups))
with open(after("-o"), "wb") as file:
    file.write(b"BPG\\xfb\\x60\\0" + ue7(width) + ue7(height) + b"\\0" + data)
""",
    BPGDEC: """
data = open(arguments[-1], "rb").read()
open(after("-o"), "wb").write(data[data.index(b"\\x89PNG"):])
""",
    VTMENC: """
data = open(after("-i"), "rb").read()
assert len(data) == 3 * int(after("-wdt")) * int(after("-hgt")), "the size is wrong"
open(after("-b"), "wb").write(b"VTM " + data)
print("many words " * 1000)
""",
    VTMDEC: """
data = open(after("-b"), "rb").read()
if not data.startswith(b"VTM "):
    sys.exit("not a VTM file")
open(after("-o"), "wb").write(data[4:])
""",
}


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A folder on PATH, a configuration for VTM, and a temporary folder that must stay empty."""
    folder, temporary = tmp_path / "bin", tmp_path / "with spaces; $(touch x) 'and' quotes"
    folder.mkdir()
    temporary.mkdir()
    (tmp_path / "intra.cfg").write_text("")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SPLITZOO_VTM_CONFIG", str(tmp_path / "intra.cfg"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for name, source in SOURCES.items():
        write_program(folder, name, source)
    yield folder
    assert list(temporary.iterdir()) == []


def write_program(folder, name, source):
    path = folder / name
    path.write_text(f"#!{sys.executable} -IS\n{PREAMBLE}{source}")
    path.chmod(0o755)


def told(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def planes(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (3, height, width)).astype(np.uint8)


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


def test_a_bpgenc_that_names_no_encoder_is_none(programs):
    (programs / BPGENC).write_text(f"#!{sys.executable} -IS\nprint('usage: bpgenc FILE')")
    codec = IMAGE_CODECS.get("bpg")
    assert "bpgenc names no HEVC encoder in its help" in codec.available()
    assert codec.versions() == {}
    with pytest.raises(DependencyError, match="names no HEVC encoder"):
        PixelsCoder("bpg", 33).encode(planes(8, 8))


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


@pytest.mark.parametrize("name", PROGRAMS)
def test_missing_programs_say_how_to_get_them(monkeypatch, tmp_path, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    codec = IMAGE_CODECS.get(name)
    encoder, decoder = PROGRAMS[name]
    assert codec.available() == f"The program {encoder} is not on PATH."
    sources = {"bpg": "https://bellard.org/bpg/", "vtm": "vcgit.hhi.fraunhofer.de/jvet/VVCSoftware"}
    for program, use in [
        (encoder, lambda: codec.encode(np.zeros((8, 8, 3), np.uint8), 30)),
        (decoder, lambda: codec.decode(b"", 8, 8, 3)),
    ]:
        with pytest.raises(DependencyError, match=f"{program} is not on PATH") as caught:
            use()
        assert sources[name] in caught.value.next_step
        assert program in caught.value.next_step


def test_a_missing_decoder_is_seen_before_it_is_needed(programs):
    for name, (_, decoder) in PROGRAMS.items():
        assert IMAGE_CODECS.get(name).available() == ""
        (programs / decoder).unlink()
        assert IMAGE_CODECS.get(name).available() == f"The program {decoder} is not on PATH."


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


def test_a_configuration_that_is_not_there_is_named(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITZOO_VTM_CONFIG", str(tmp_path / "other.cfg"))
    with pytest.raises(DependencyError, match=r"configuration is missing: .*other\.cfg"):
        IMAGE_CODECS.get("vtm").encode(np.zeros((8, 8, 3), np.uint8), 30)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_fails_is_quoted(programs, name):
    encoder, decoder = PROGRAMS[name]
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    for program in (encoder, decoder):
        write_program(programs, program, "print('x' * 5000)\nsys.exit('no more\\nmemory')")
    with pytest.raises(SplitzooError) as caught:
        coder.encode(planes(8, 8))
    assert type(caught.value) is SplitzooError
    assert f"could not be coded as {name}: {encoder} ended with code 1, saying: x" in str(
        caught.value
    )
    assert "no more memory" in str(caught.value)
    assert len(str(caught.value)) < 500
    with pytest.raises(BitstreamError, match=f"{decoder} ended with code 1, saying: x*"):
        coder.decode(payload, 8, 8)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_writes_nothing_is_an_error(programs, name):
    encoder, decoder = PROGRAMS[name]
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    for program in (encoder, decoder):
        write_program(programs, program, "")
    with pytest.raises(SplitzooError, match="no file came out"):
        coder.encode(planes(8, 8))
    with pytest.raises(BitstreamError, match="no file came out"):
        coder.decode(payload, 8, 8)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_for_another_machine_is_an_error(programs, name):
    encoder, decoder = PROGRAMS[name]
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    for program in (encoder, decoder):
        (programs / program).write_bytes(b"\x7fELF of something else")
    for use in (lambda: coder.encode(planes(8, 8)), lambda: coder.decode(payload, 8, 8)):
        with pytest.raises(DependencyError, match="cannot be run: exec format error"):
            use()


def ended(pid):
    """Wait until a process is gone, or dead and not yet collected by its parent."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


HANGS = """
import subprocess, time
child = subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(600)"])
with open(os.path.join(os.path.dirname(sys.argv[0]), "pids"), "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def pids(folder):
    """Of the program that hangs and of its child, as soon as both run."""
    path = folder / "pids"
    deadline = time.monotonic() + 20
    while not path.exists() or " " not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_program_that_hangs_is_killed_with_its_children(programs):
    codec = BpgCodec(encoding=TimeLimit(2, 0), decoding=TimeLimit(2, 0))
    payload = codec.encode(np.zeros((8, 8, 3), np.uint8), 30)
    for program in PROGRAMS["bpg"]:
        write_program(programs, program, HANGS)
    for kind, use in [
        (SplitzooError, lambda: codec.encode(np.zeros((8, 8, 3), np.uint8), 30)),
        (BitstreamError, lambda: codec.decode(payload, 8, 8, 3)),
    ]:
        started = time.monotonic()
        with pytest.raises(kind, match="was stopped after 2 s"):
            use()
        assert time.monotonic() - started < 10
        assert all(map(ended, pids(programs)))
        (programs / "pids").unlink()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_wait_that_is_interrupted_leaves_nothing_running(programs):
    write_program(programs, BPGENC, HANGS)
    found = []

    def interrupt():
        found.extend(pids(programs))
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    # A shell starts programs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            PixelsCoder("bpg", 30).encode(planes(8, 8))
        watcher.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(found) == 2
    assert all(map(ended, found))


def test_time_limits_grow_with_the_image():
    limits = TimeLimit(10, 100).limits(1000, 2000)
    assert limits.seconds == 210
    assert limits.memory_bytes == 0
    assert TimeLimit(10, 100).limits(0, 0, decoding=True).memory_bytes == 2 << 30


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are Linux's")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_decoder_that_writes_too_much_is_stopped(programs, name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    write_program(
        programs,
        PROGRAMS[name][1],
        "file = open(after('-o'), 'wb')\nfor _ in range(1000): file.write(bytes(1 << 20))",
    )
    with pytest.raises(BitstreamError, match=r"ended with code"):
        coder.decode(payload, 8, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are Linux's")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_decoder_that_takes_too_much_memory_is_stopped(programs, name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    # Asked for a little later, as the limit comes after the start.
    write_program(programs, PROGRAMS[name][1], "import time; time.sleep(0.3); bytes(4 << 30)")
    with pytest.raises(BitstreamError, match="MemoryError"):
        coder.decode(payload, 8, 8)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_decoder_that_writes_another_size_is_refused(programs, name):
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 16))
    smaller = coder.encode(planes(8, 8))
    source = SOURCES[PROGRAMS[name][1]].replace("data = open", f"data = {smaller!r} or open")
    write_program(programs, PROGRAMS[name][1], source)
    with pytest.raises(BitstreamError):
        coder.decode(payload, 8, 16)


def test_a_bpgdec_that_writes_another_format_is_refused(programs, tmp_path):
    payload = PixelsCoder("bpg", 30).encode(planes(8, 8))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.bmp")
    bitmap = (tmp_path / "a.bmp").read_bytes()
    write_program(programs, BPGDEC, f"open(after('-o'), 'wb').write({bitmap!r})")
    with pytest.raises(BitstreamError, match="cannot be decoded"):
        PixelsCoder("bpg", 30).decode(payload, 8, 8)


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


@pytest.mark.parametrize("name", PROGRAMS)
def test_images_beyond_the_programs_are_refused(programs, name):
    with pytest.raises(SplitzooError, match=f"cannot be coded as {name}: sides of 1 to 8192"):
        PixelsCoder(name, 30).encode(np.zeros((3, 1, 8193), np.uint8))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_temporary_folder_that_is_not_there_is_an_error(programs, monkeypatch, tmp_path, name):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SplitzooError, match=r"temporary folder for .* no such file") as caught:
        PixelsCoder(name, 30).encode(planes(8, 8))
    assert "TMPDIR" in caught.value.next_step


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
