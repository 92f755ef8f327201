"""Map where in an image the bits go, and where an input codec's would (SC2 paper, Figure 2).

A learned density says how many bits each element of the latent costs. An image codec does not: its
map is by block, and a block's share is what the file shrinks by when the block is filled with its
mean colour.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import SpecError
from splitrun.preprocessing import Preprocessing

from ..zoo.split_model import SplitModel

_BLOCK = 16
"""Side of a block, pixels: JPEG's blocks with halved colours, WebP's macroblocks."""


@dataclass(frozen=True)
class BitMap:
    """Bits per pixel of the model's input.

    Attributes:
        model: Name of the model.
        bits: Bits of each pixel (H, W) float32; their sum is ``total_bits``.
        total_bits: Bits by the learned density, or of the codec's payload.
        payload_bytes: Size of the image's payload.
    """

    model: str
    bits: NDArray[np.float32]
    total_bits: float
    payload_bytes: int

    def centre(self, height: int, width: int) -> "BitMap":
        """Return the map of the centre of that size, pixels; the payload stays the whole one."""
        bits = _centre(self.bits, height, width)
        return replace(self, bits=bits, total_bits=float(bits.sum(dtype=np.float64)))


def common_part(
    ours: BitMap, theirs: BitMap, inputs: tuple[Preprocessing, Preprocessing]
) -> tuple[BitMap, BitMap]:
    """Cut two models' maps of an image to the centre that both see.

    Args:
        ours: Map of the first model.
        theirs: Map of the second.
        inputs: Preprocessing of the two.

    Raises:
        SpecError: They see the image at different scales.
    """
    first, second = inputs
    if (first.fit, first.resize, first.longest) != (second.fit, second.resize, second.longest):
        raise SpecError(
            f"{ours.model} and {theirs.model} see an image at different scales: "
            f"{first.summary()}; {second.summary()}.",
            next_step="Compare models whose inputs have one size.",
        )
    size = [min(sides) for sides in zip(ours.bits.shape, theirs.bits.shape, strict=True)]
    return ours.centre(*size), theirs.centre(*size)


def _centre(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    return array[top : top + height, left : left + width]


def map_bits(model: SplitModel, image: NDArray[np.float32]) -> BitMap:
    """Map where the bits of one image go.

    Args:
        model: Model with a learned density, or with an image codec in front of it.
        image: The model's input (1, 3, H, W) float32.

    Raises:
        SpecError: The payload does not depend on places: raw bytes, or coded features.
    """
    coder = model.codec.coder
    tensors = [tensor[0] for tensor in model.wire_tensors(torch.from_numpy(image))]
    payload = coder.encode(*tensors)
    if isinstance(coder, PixelsCoder):
        bits = _codec_bits(coder, tensors[0], len(payload))
    else:
        bits = _density_bits(model, image)
    return BitMap(model.spec.name, bits, float(bits.sum(dtype=np.float64)), len(payload))


@torch.no_grad()
def _density_bits(model: SplitModel, image: NDArray[np.float32]) -> NDArray[np.float32]:
    likelihoods = model.bottleneck.likelihoods(model.encoder(torch.from_numpy(image)))
    if not likelihoods:
        raise SpecError(
            f"{model.spec.name} has no learned density: all its places cost the same.",
            next_step="Take a model with an entropy bottleneck or a hyperprior.",
        )
    height, width = image.shape[-2:]
    total = np.zeros((height, width), np.float32)
    for likelihood in likelihoods:
        cells = -likelihood[0].log2().sum(0)
        # An element's bits are spread evenly over its cell of the image.
        rows, columns = (
            _overlaps(pixels, count)
            for pixels, count in zip((height, width), cells.shape, strict=True)
        )
        total += rows @ cells.numpy() @ columns.T
    return total


def _overlaps(pixels: int, cells: int) -> NDArray[np.float32]:
    """Return the share of each cell that lies in each pixel of a side: (pixels, cells)."""
    edges = np.arange(cells + 1) * pixels / cells
    pixel = np.arange(pixels)[:, None]
    common = np.minimum(pixel + 1, edges[1:]) - np.maximum(pixel, edges[:-1])
    return (np.maximum(common, 0) * cells / pixels).astype(np.float32)


def _codec_bits(
    coder: PixelsCoder, pixels: NDArray[np.uint8], payload_bytes: int
) -> NDArray[np.float32]:
    _, height, width = pixels.shape
    saved = np.zeros((height, width), np.float32)
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            window = np.s_[top : top + _BLOCK, left : left + _BLOCK]
            without = pixels.copy()
            block = pixels[:, *window]
            without[:, *window] = np.rint(block.mean((1, 2), keepdims=True)).astype(np.uint8)
            less = max(payload_bytes - len(coder.encode(without)), 0)
            saved[window] = 8 * less / block[0].size
    total = saved.sum(dtype=np.float64)
    # Neighbouring blocks share bits, and all share the header: scaled, they sum to the payload.
    return saved * np.float32(8 * payload_bytes / total) if total else saved


def draw_bit_maps(
    pixels: NDArray[np.uint8], ours: BitMap, theirs: BitMap | None, path: Path
) -> None:
    """Draw an image and its map; beside them another model's map and the differences, as PNG.

    The first difference is of bits, as in the paper's Figure 2; the second of shares of each
    payload, which does not turn blue all over where one is much smaller.

    Args:
        pixels: Image (H, W, 3) uint8 as the model sees it, or more around that centre, or without
            padding on the right and below.
        ours: Map of the model.
        theirs: Map of the model that it is compared with, if any.
        path: PNG file to write.
    """
    draw_panels(pixels, ours, theirs).savefig(path, metadata={"Software": None})


def draw_panels(pixels: NDArray[np.uint8], ours: BitMap, theirs: BitMap | None) -> Figure:
    """Draw what :func:`draw_bit_maps` writes."""
    maps = [ours] if theirs is None else [ours, theirs]
    height, width = ours.bits.shape
    rows, columns = (min(sides) for sides in zip(pixels.shape, (height, width), strict=False))
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[:rows, :columns] = _centre(pixels, rows, columns)
    panels = _Panels(canvas, 2 if theirs is None else 5)
    panels.add("the image\nas the model sees it")
    most = max(float(shown.bits.max()) for shown in maps) or 1.0
    for shown in maps:
        title = f"{_short(shown.model)}\n{shown.payload_bytes:,} bytes"
        panels.add(title, shown.bits, "viridis", (0.0, most), "bits per pixel")
    if theirs is not None:
        for title, difference, unit in (
            (
                "difference of bits\nred: more in the first",
                ours.bits - theirs.bits,
                "bits per pixel",
            ),
            (
                "difference of shares of the payload\nred: more in the first",
                1e6 * (ours.bits / (ours.total_bits or 1) - theirs.bits / (theirs.total_bits or 1)),
                "parts per million in a pixel",
            ),
        ):
            bound = float(np.abs(difference).max()) or 1.0
            panels.add(title, difference, "RdBu_r", (-bound, bound), unit)
    return panels.figure


_WIDTH, _GAP, _TITLE, _BAR, _BELOW = 3.0, 0.2, 0.5, 0.12, 0.5
"""Sizes, inches: of a panel, between panels, of a title, of a colour bar, and below the bar."""


class _Panels:
    """Panels of one size in a row, with a title above and a colour bar below."""

    def __init__(self, pixels: NDArray[np.uint8], count: int) -> None:
        self._pixels, self._grey, self._number = pixels, pixels.mean(2), 0
        self._tall = _WIDTH * pixels.shape[0] / pixels.shape[1]
        self._size = (
            count * (_WIDTH + _GAP) + _GAP,
            self._tall + _TITLE + _GAP + _BAR + _BELOW,
        )
        self.figure = Figure(figsize=self._size, dpi=120, facecolor="white")
        FigureCanvasAgg(self.figure)

    def add(
        self,
        title: str,
        values: NDArray[np.float32] | None = None,
        colours: str = "",
        limits: tuple[float, float] = (0, 1),
        unit: str = "",
    ) -> None:
        """Add a panel: the image or, where there are values, these over it in grey."""
        left = _GAP + self._number * (_WIDTH + _GAP)
        self._number += 1
        axes = self._axes(left, _BELOW + _BAR + _GAP / 2, self._tall)
        axes.axis("off")
        axes.set_title(title, fontsize=8.5)
        if values is None:
            axes.imshow(self._pixels, aspect="auto")
            return
        axes.imshow(self._grey, cmap="gray", vmin=0, vmax=255, aspect="auto")
        low, high = limits
        shown = axes.imshow(values, cmap=colours, vmin=low, vmax=high, alpha=0.72, aspect="auto")
        bar = self.figure.colorbar(
            shown, cax=self._axes(left, _BELOW, _BAR), orientation="horizontal"
        )
        bar.ax.tick_params(labelsize=7)
        bar.locator = MaxNLocator(5)
        bar.set_label(unit, fontsize=7.5)

    def _axes(self, left: float, bottom: float, tall: float) -> Any:
        width, height = self._size
        box = (left / width, bottom / height, _WIDTH / width, tall / height)
        return self.figure.add_axes(box)


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"
