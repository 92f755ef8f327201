"""The example device program in C: its stream is that of ``splitrun encode``."""

import subprocess
import sys
from pathlib import Path

import pytest
from c_compiler import compile_c, needs_compiler
from PIL import Image

from splitzoo import zoo

PHOTO = Path(__file__).parents[2] / "zoo" / "images" / "dandelion.jpg"


def splitrun(*words: object) -> None:
    command = [sys.executable, "-m", "splitrun", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """A folder with the program, compiled, its tables and a bundle for OpenVINO."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from splitzoo import export

    place = Path(openvino.__file__).parent
    (library,) = (place / "libs").glob("libopenvino_c.so*")
    folder = tmp_path_factory.mktemp("device")
    export.split(zoo.DEFAULT_MODEL, folder / "bundle", target="openvino")
    splitrun("coder", folder / "bundle", "-o", folder / "c")
    sources = (folder / "c" / "device.c", folder / "c" / "sz.c")
    # OpenVINO finds its plugins beside its own library.
    flags = (f"-I{place / 'include'}", library, f"-Wl,-rpath,{library.parent}")
    compile_c(folder / "device", "-Wall", "-Wextra", "-Werror", "-O2", *sources, *flags)
    return folder


def run(folder: Path, photo: Path, stream: str = "c.sz") -> subprocess.CompletedProcess:
    graph = folder / "bundle" / "device" / "encoder.xml"
    command = [folder / "device", graph, folder / "c" / "coder.bin", photo, folder / stream]
    return subprocess.run([*map(str, command)], capture_output=True, text=True)


@pytest.mark.slow
@needs_compiler
# The second leaves an odd number of columns out, and the third of rows.
@pytest.mark.parametrize("size", [(224, 224), (301, 224), (224, 227)])
def test_the_stream_is_that_of_splitrun_encode(device, size):
    photo = device / "photo.ppm"
    with Image.open(PHOTO) as image:
        image.convert("RGB").resize(size).save(photo)
    done = run(device, photo)
    assert done.returncode == 0, done.stderr
    stream = (device / "c.sz").read_bytes()
    assert done.stdout == f"{device / 'c.sz'}: {len(stream)} bytes\n"
    splitrun("--bundle", device / "bundle", "encode", photo, "-o", device / "p.sz", "--force")
    assert (device / "p.sz").read_bytes() == stream
    splitrun("--bundle", device / "bundle", "decode", device / "c.sz")


@pytest.mark.slow
@needs_compiler
def test_what_is_wrong_is_one_line(device):
    small, cut, other = (device / name for name in ("small.ppm", "cut.ppm", "other.ppm"))
    Image.new("RGB", (100, 100)).save(small)
    Image.new("RGB", (224, 224)).save(cut)
    cut.write_bytes(cut.read_bytes()[:-1])
    other.write_bytes(b"P5 224 224 255 ")
    for photo, message in (
        (small, "has another size than the model takes, see model.h"),
        (cut, "ends too early"),
        (other, "is no PPM with 8 bits"),
        (device / "absent.ppm", "is no PPM with 8 bits"),
    ):
        done = run(device, photo, "wrong.sz")
        assert (done.returncode, done.stderr) == (1, f"error: {photo}: {message}\n")
        assert not (device / "wrong.sz").exists()
