"""BPG and VTM (the reference software of VVC) by their programs, for pixels of one known size.

Both code YCbCr 4:4:4 of 8 bits. The pixels reach the programs without loss; sc2bench 0.1.1 hands
BPG a JPEG of quality 100, and truncates VTM's input and output where they are rounded here.
"""

import functools
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BitstreamError, DependencyError, SplitzooError
from .base import ImageCodec
from .headers import check_bpg
from .pillow_codecs import open_image
from .programs import (
    LOG_NAME,
    ProgramError,
    ProgramLimits,
    find_program,
    read_output,
    run_program,
)

VTM_CONFIG_VARIABLE = "SPLITZOO_VTM_CONFIG"
"""Environment variable: the path of ``encoder_intra_vtm.cfg``."""

_BPG_NEXT_STEP = (
    "Get libbpg 0.9.8 from https://bellard.org/bpg/, build it with make, and put bpgenc and bpgdec "
    "on PATH."
)
_VTM_NEXT_STEP = (
    "Build https://vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM, put EncoderAppStatic and "
    f"DecoderAppStatic from its bin/ on PATH, and set {VTM_CONFIG_VARIABLE} to its "
    "cfg/encoder_intra_vtm.cfg."
)
_SLACK_BYTES = 1 << 20
_DECODER_BYTES = 2 << 30
_DECODER_BYTES_PER_PIXEL = 1 << 10


@dataclass(frozen=True)
class TimeLimit:
    """How long a program may take.

    Attributes:
        seconds: Time for any image.
        seconds_per_megapixel: Further time by the size of the image.
    """

    seconds: float
    seconds_per_megapixel: float

    def limits(self, height: int, width: int, *, decoding: bool = False) -> ProgramLimits:
        """Return a program's limits for an image."""
        # Encoders take address space for threads that they never use.
        memory_bytes = _DECODER_BYTES + _DECODER_BYTES_PER_PIXEL * height * width
        return ProgramLimits(
            seconds=self.seconds + self.seconds_per_megapixel * height * width / 1e6,
            # Four times the raw image, for files that grow and for what a program prints.
            file_bytes=12 * height * width + _SLACK_BYTES,
            memory_bytes=memory_bytes if decoding else 0,
        )


@dataclass(frozen=True)
class BpgCodec(ImageCodec):
    """HEVC intra coding by ``bpgenc`` and ``bpgdec`` of libbpg.

    A ``bpgenc`` has x265, JCTVC's encoder, or both, as it was built. x265 is taken where it is
    there, as in sc2-benchmark; the bytes of the two differ, and either's are read alike.
    """

    encoding: TimeLimit = TimeLimit(60, 120)
    decoding: TimeLimit = TimeLimit(60, 60)
    name: str = "bpg"
    max_side: int = 1 << 13
    qualities: range = range(51, -1, -1)

    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""
        if missing := _missing("bpgenc", "bpgdec"):
            return missing
        try:
            _bpg_encoder(find_program("bpgenc", _BPG_NEXT_STEP))
        except DependencyError as error:
            return error.message
        return ""

    def versions(self) -> dict[str, str]:
        """Return version and encoder of ``bpgenc``; nothing where it cannot be used."""
        try:
            program = find_program("bpgenc", _BPG_NEXT_STEP)
            encoder = _bpg_encoder(program)
        except DependencyError:
            return {}
        version = re.search(r"BPG Image Encoder version (\S+)", _bpg_help(program))
        return {"bpgenc": f"{version[1] if version else 'unknown version'}, {encoder}"}

    def _encode(self, image: Image.Image, quality: int) -> bytes:
        program = find_program("bpgenc", _BPG_NEXT_STEP)
        encoder = _bpg_encoder(program)
        limits = self.encoding.limits(image.height, image.width)
        arguments = ["-o", "coded.bpg", "-q", str(quality)]
        arguments += ["-f", "444", "-e", encoder, "-c", "ycbcr", "-b", "8", "pixels.png"]
        with _folder(self.name) as folder:
            image.convert("RGB").save(folder / "pixels.png")
            run_program([program, *arguments], folder, limits)
            return read_output(folder / "coded.bpg", limits)

    def _decode(self, data: bytes, height: int, width: int, channels: int) -> Image.Image:
        program = find_program("bpgdec", _BPG_NEXT_STEP)
        check_bpg(data, height, width, channels)
        limits = self.decoding.limits(height, width, decoding=True)
        with _folder(self.name, decoding=True) as folder:
            (folder / "coded.bpg").write_bytes(data)
            run_program([program, "-o", "pixels.png", "coded.bpg"], folder, limits)
            decoded = read_output(folder / "pixels.png", limits)
        return open_image(decoded, "PNG", height, width)


@dataclass(frozen=True)
class VtmCodec(ImageCodec):
    """VVC intra coding by ``EncoderAppStatic`` and ``DecoderAppStatic`` of VTM.

    The encoder takes whole units of 8 pixels; an image of other sides has its last row and column
    repeated, and is cut back.
    """

    encoding: TimeLimit = TimeLimit(300, 3600)
    decoding: TimeLimit = TimeLimit(60, 120)
    name: str = "vtm"
    max_side: int = 1 << 13
    qualities: range = range(63, -1, -1)

    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""
        try:
            _vtm_config(find_program("EncoderAppStatic", _VTM_NEXT_STEP))
        except DependencyError as error:
            return error.message
        return _missing("DecoderAppStatic")

    def _encode(self, image: Image.Image, quality: int) -> bytes:
        program = find_program("EncoderAppStatic", _VTM_NEXT_STEP)
        config = _vtm_config(program)
        fill = ((0, -image.height % 8), (0, -image.width % 8), (0, 0))
        planes = rgb_to_ycbcr(np.pad(np.array(image.convert("RGB")), fill, "edge"))
        coded_height, coded_width = planes.shape[1:]
        limits = self.encoding.limits(coded_height, coded_width)
        command = [program, "-i", "pixels.yuv", "-c", str(config), "-q", str(quality)]
        command += ["-o", os.devnull, "-b", "coded.bin"]
        command += ["-wdt", str(coded_width), "-hgt", str(coded_height), "-fr", "1", "-f", "1"]
        command += ["--InputChromaFormat=444", "--InputBitDepth=8"]
        with _folder(self.name) as folder:
            (folder / "pixels.yuv").write_bytes(planes.tobytes())
            run_program(command, folder, limits)
            return read_output(folder / "coded.bin", limits)

    def _decode(self, data: bytes, height: int, width: int, channels: int) -> Image.Image:
        program = find_program("DecoderAppStatic", _VTM_NEXT_STEP)
        shape = (3, height + -height % 8, width + -width % 8)
        limits = self.decoding.limits(*shape[1:], decoding=True)
        with _folder(self.name, decoding=True) as folder:
            (folder / "coded.bin").write_bytes(data)
            command = [program, "-b", "coded.bin", "-o", "pixels.yuv", "-d", "8"]
            run_program(command, folder, limits)
            decoded = read_output(folder / "pixels.yuv", limits)
            if len(decoded) != math.prod(shape):
                raise ProgramError(f"{len(decoded)} bytes came out, not {math.prod(shape)}")
        planes = np.frombuffer(decoded, np.uint8).reshape(shape)
        return Image.fromarray(ycbcr_to_rgb(planes)[:height, :width])


_RED, _BLUE = 0.2126, 0.0722
_GREEN = 1 - _RED - _BLUE


def rgb_to_ycbcr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn pixels (H, W, 3) into planes (3, H, W) of YCbCr after ITU-R BT.709, full range."""
    red, green, blue = rgb.transpose(2, 0, 1).astype(np.float64)
    luma = _RED * red + _GREEN * green + _BLUE * blue
    chroma_blue = 0.5 * (blue - luma) / (1 - _BLUE) + 128
    chroma_red = 0.5 * (red - luma) / (1 - _RED) + 128
    return _to_bytes(np.stack((luma, chroma_blue, chroma_red)))


def ycbcr_to_rgb(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn planes (3, H, W) of YCbCr after ITU-R BT.709, full range, into pixels (H, W, 3)."""
    luma, chroma_blue, chroma_red = planes.astype(np.float64)
    red = luma + 2 * (1 - _RED) * (chroma_red - 128)
    blue = luma + 2 * (1 - _BLUE) * (chroma_blue - 128)
    green = (luma - _RED * red - _BLUE * blue) / _GREEN
    return _to_bytes(np.stack((red, green, blue), axis=-1))


def _to_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _bpg_help(program: str) -> str:
    return _help(program, Path(program).stat().st_mtime_ns)


@functools.cache
def _help(program: str, _changed_ns: int) -> str:
    """Return what a program says of itself, however it ends then."""
    with _folder("bpg") as folder:
        with suppress(ProgramError):
            run_program([program, "-h"], folder, TimeLimit(10, 0).limits(0, 0))
        return (folder / LOG_NAME).read_text(errors="replace")


def _bpg_encoder(program: str) -> str:
    """Return the name of the HEVC encoder to take of those that a ``bpgenc`` was built with."""
    found = re.search(r"HEVC encoder \(([a-z0-9 ]+),", _bpg_help(program))
    encoders = found[1].split() if found else []
    if not encoders:
        raise DependencyError(
            f"{program} names no HEVC encoder in its help, so it is no bpgenc of libbpg.",
            next_step=_BPG_NEXT_STEP,
        )
    return "x265" if "x265" in encoders else encoders[0]


def _vtm_config(encoder: str) -> Path:
    """Return the encoder's configuration: where the variable says, or in its source tree."""
    beside = Path(encoder).resolve().parents[1] / "cfg" / "encoder_intra_vtm.cfg"
    named = os.environ.get(VTM_CONFIG_VARIABLE)
    config = Path(named) if named else beside
    if not config.is_file():
        fault = f"missing: {config}" if named else f"not known: {VTM_CONFIG_VARIABLE} is not set"
        raise DependencyError(f"VTM's configuration is {fault}.", next_step=_VTM_NEXT_STEP)
    return config.absolute()


def _missing(*names: str) -> str:
    try:
        for name in names:
            find_program(name, "")
    except DependencyError as error:
        return error.message
    return ""


@contextmanager
def _folder(name: str, *, decoding: bool = False) -> Iterator[Path]:
    """Open a temporary folder for a program, and raise what went wrong in it as our errors."""
    try:
        with tempfile.TemporaryDirectory(prefix="splitzoo-") as folder:
            yield Path(folder)
    except ProgramError as error:
        if decoding:
            damaged = f"The payload's {name} image cannot be decoded: {error}."
            raise BitstreamError(damaged) from error
        raise SplitzooError(f"The image could not be coded as {name}: {error}.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SplitzooError(
            f"The temporary folder for {name} cannot be used: {reason}.",
            next_step="Make room, or name another folder in TMPDIR.",
        ) from error
