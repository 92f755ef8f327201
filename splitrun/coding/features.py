"""Coder of feature compression: a layer's planes as one grey image, through an image codec.

The payload is a raw deflate stream (RFC 1951) of the ranges, and behind it the image.

A *range* turns features into grey levels 0 to 255: ``level = (feature - minimum) / step``. Each
plane has its own; planes of fewer than 32 elements share one among as many as have 256 together.
The ranges are all minima, float32, then all steps, the upper 16 bits of float32, both
little-endian.

In the image the planes lie in rows, side by side without gaps, as near to a square as its limits
allow; the places after the last plane are black.

Why so: from images through a ResNet-50 with random weights and spread scales, ReLU features of
layer1 to layer4, qualities 5 to 100, differences at equal size. Against one range for the whole
tensor, planes padded to whole 8×8 blocks, the squared error of the tensor differs by -3 to +5 dB,
while the mean of the planes' own errors, each relative to its variance, is as a rule lower, by up
to 14 dB: no plane drowns under a louder one, and an outlier spoils its own range alone. Without the
padding, where small planes share blocks with loud ones, it is up to 25 dB. Padded planes with
ranges of their own are 0 to 7 dB worse than unpadded ones. After average pooling (1×1) ranges of
their own would be all of the payload; 256 elements to a range do as well as one range for all.
"""

import math
import zlib
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, SplitzooError, TablesError
from ..images.codecs import codec_of
from .coder import Array, HyperDecoder, Setting, SettingsCoder
from .tables import MAX_CHANNELS

FEATURE_CODECS = ("jpeg", "webp")
"""Image codecs, by their names in ``IMAGE_CODECS``, that can code the grey image."""

_SMALL_PLANE = 32
_ELEMENTS_OF_A_RANGE = 256
_RANGE_BYTES = 6
_DEFLATE = -15  # without the header and checksum of zlib's own format
_FLOAT32 = np.finfo(np.float32)


class FeaturesCoder(SettingsCoder):
    """Codes features of any sign and scale as 8-bit planes in one image.

    A plane that is constant, zeros among them, comes back exactly where it has a range of its own.

    Args:
        codec: Name of the image codec, ``"jpeg"`` or ``"webp"``.
        quality: Quality in the codec's own units.
        channels: Number of channels of the features.

    Raises:
        TablesError: There is no such codec, quality or number of channels.
    """

    kind: ClassVar[str] = "features"
    lossless: ClassVar[bool] = False
    setting_names: ClassVar[tuple[str, ...]] = ("codec", "quality", "channels")

    def __init__(self, codec: str, quality: int, channels: int) -> None:
        if codec not in FEATURE_CODECS:
            raise TablesError(
                f"Features are coded with {' or '.join(FEATURE_CODECS)}, not {codec!r}."
            )
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise TablesError(
                f"Features of {channels!r} channels; 1 to {MAX_CHANNELS} are possible."
            )
        self.codec = codec_of(codec, quality)
        self.quality = quality
        self._channels = channels

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self._channels

    def encode(self, *tensors: Array) -> bytes:
        """Code the features of one image: (C, h, w) float32, all finite.

        Raises:
            SplitzooError: They hold NaN or infinity, or are of another shape.
        """
        (features,) = tensors
        if features.ndim != 3 or features.shape[0] != self.channels or not features.size:
            raise SplitzooError(
                f"The features have the shape {features.shape}; (C, h, w) with {self.channels} "
                "channels is expected."
            )
        features = features.astype(np.float32, copy=False)
        if not np.isfinite(features).all():
            raise SplitzooError(
                "The features hold NaN or infinity, which no image can.",
                next_step="Look for the layer that overflows; half precision is a likely cause.",
            )
        _, height, width = features.shape
        grid = self._grid(height, width)
        if grid is None:
            raise SplitzooError(self._too_large(height, width))
        minima, steps = _ranges(features)
        levels = _levels(features, minima, _widened(steps))
        header = minima.astype("<f4").tobytes() + steps.astype("<u2").tobytes()
        deflate = zlib.compressobj(9, zlib.DEFLATED, _DEFLATE)
        image = self.codec.encode(_laid_out(levels, grid), self.quality)
        return deflate.compress(header) + deflate.flush() + image

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Return the features (C, height, width) float32, all finite.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        grid = self._grid(height, width)
        if grid is None:
            raise BitstreamError(self._too_large(height, width))
        count = math.ceil(self.channels / _planes_of_a_range(height, width))
        header, image = _inflated(payload, _RANGE_BYTES * count)
        minima = np.frombuffer(header, "<f4", count)
        steps = _widened(np.frombuffer(header, "<u2", offset=4 * count))
        if not (np.isfinite(minima).all() and np.isfinite(steps).all() and steps.min() >= 0):
            raise BitstreamError("The payload holds a range that is not finite.")
        rows, columns = grid
        pixels = self.codec.decode(image, rows * height, columns * width, 1)
        levels = pixels.reshape(rows, height, columns, width).swapaxes(1, 2)
        levels = levels.reshape(-1, height, width)[: self.channels]
        return (_features(levels, minima, steps),)

    def _grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Return rows and columns of planes in the image; None where a side gets too long."""
        most_rows, most_columns = self.codec.max_side // height, self.codec.max_side // width
        if not most_rows or not most_columns:
            return None
        columns = min(max(1, math.isqrt(self.channels * height // width)), most_columns)
        columns = max(columns, math.ceil(self.channels / most_rows))
        columns = min(columns, self.channels)
        return (math.ceil(self.channels / columns), columns) if columns <= most_columns else None

    def _too_large(self, height: int, width: int) -> str:
        return (
            f"Features of {self.channels}×{height}×{width} do not fit into a {self.codec.name} "
            f"image, whose sides end at {self.codec.max_side}."
        )

    def settings(self) -> dict[str, Setting]:
        """Return the codec's name and quality, and the number of channels."""
        return {"codec": self.codec.name, "quality": self.quality, "channels": self.channels}


def _planes_of_a_range(height: int, width: int) -> int:
    size = height * width
    return 1 if size >= _SMALL_PLANE else math.ceil(_ELEMENTS_OF_A_RANGE / size)


def _ranges(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return minima and steps of features (C, h, w), the steps as the upper half of float32.

    Steps are rounded up, so that level 255 reaches the greatest feature.
    """
    channels, height, width = features.shape
    starts = np.arange(0, channels, _planes_of_a_range(height, width))
    planes = features.reshape(channels, -1)
    minima = np.minimum.reduceat(planes.min(axis=1), starts)
    maxima = np.maximum.reduceat(planes.max(axis=1), starts)
    # In float64, as the difference of two float32 may exceed float32.
    exact = (maxima.astype(np.float64) - minima) / 255
    steps = exact.astype(np.float32)
    steps = np.where(steps < exact, np.nextafter(steps, np.float32(np.inf)), steps)
    return minima, ((steps.view(np.uint32) + np.uint32(0xFFFF)) >> 16).astype(np.uint16)


def _widened(steps: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (steps.astype(np.uint32) << 16).view(np.float32)


def _of_planes(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the value of each plane from the value of each range, (C, 1, 1) float64."""
    repeated = np.repeat(values.astype(np.float64), _planes_of_a_range(*shape[1:]))
    return repeated[: shape[0], None, None]


def _levels(
    features: NDArray[np.float32], minima: NDArray[np.float32], steps: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Quantise features (C, h, w) to grey levels."""
    levels = features - _of_planes(minima, features.shape)
    # A step of 0 is that of constant planes, whose levels are all 0.
    levels /= _of_planes(np.where(steps > 0, steps, np.float32(1)), features.shape)
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def _features(
    levels: NDArray[np.uint8], minima: NDArray[np.float32], steps: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Turn grey levels (C, h, w) back into features."""
    features = levels * _of_planes(steps, levels.shape)
    features += _of_planes(minima, levels.shape)
    return features.clip(_FLOAT32.min, _FLOAT32.max).astype(np.float32)


def _laid_out(levels: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Lay planes (C, h, w) out as one image (rows·h, columns·w)."""
    rows, columns = grid
    channels, height, width = levels.shape
    places = np.zeros((rows * columns, height, width), np.uint8)
    places[:channels] = levels
    places = places.reshape(rows, columns, height, width).swapaxes(1, 2)
    return places.reshape(rows * height, columns * width)


def _inflated(payload: bytes, size: int) -> tuple[bytes, bytes]:
    """Return a payload's deflated part, whose size is known, and the bytes after it."""
    inflate = zlib.decompressobj(_DEFLATE)
    try:
        header = inflate.decompress(payload, size + 1)  # one more shows that there are more
    except zlib.error as error:
        raise BitstreamError(f"The payload's ranges are damaged: {error}.") from error
    if len(header) != size or not inflate.eof:
        raise BitstreamError(f"The payload's ranges do not unpack to {size} bytes.")
    return header, inflate.unused_data
