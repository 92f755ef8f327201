"""BPG and VTM whose programs are missing, fail, hang, take too much, or give something else."""

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in_programs import BPGDEC, BPGENC, PROGRAMS, SOURCES, planes, write_program

from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import BitstreamError, DependencyError, SplitzooError
from splitrun.images.codecs import IMAGE_CODECS
from splitrun.images.external_codecs import BpgCodec, TimeLimit


def test_a_bpgenc_that_names_no_encoder_is_none(programs):
    (programs / BPGENC).write_text(f"#!{sys.executable} -IS\nprint('usage: bpgenc FILE')")
    codec = IMAGE_CODECS.get("bpg")
    assert "bpgenc names no HEVC encoder in its help" in codec.available()
    assert codec.versions() == {}
    with pytest.raises(DependencyError, match="names no HEVC encoder"):
        PixelsCoder("bpg", 33).encode(planes(8, 8))


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


def test_a_configuration_that_is_not_there_is_named(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITZOO_VTM_CONFIG", str(tmp_path / "other.cfg"))
    with pytest.raises(DependencyError, match=r"configuration is missing: .*other\.cfg"):
        IMAGE_CODECS.get("vtm").encode(np.zeros((8, 8, 3), np.uint8), 30)


def coded_before(programs, name, source):
    """Return a coder and what it coded before its programs became ``source``."""
    coder = PixelsCoder(name, 30)
    payload = coder.encode(planes(8, 8))
    for program in PROGRAMS[name]:
        write_program(programs, program, source)
    return coder, payload


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_fails_is_quoted(programs, name):
    encoder, decoder = PROGRAMS[name]
    source = "print('x' * 5000)\nsys.exit('no more\\nmemory')"
    coder, payload = coded_before(programs, name, source)
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
    coder, payload = coded_before(programs, name, "")
    with pytest.raises(SplitzooError, match="no file came out"):
        coder.encode(planes(8, 8))
    with pytest.raises(BitstreamError, match="no file came out"):
        coder.decode(payload, 8, 8)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_for_another_machine_is_an_error(programs, name):
    coder, payload = coded_before(programs, name, "")
    for program in PROGRAMS[name]:
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
