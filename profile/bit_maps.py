"""Map where in an image the bits go, and where an input codec's would (SC2 paper, Figure 2).

A learned density says how many bits each element of the latent costs. An image codec does not: its
map is by block, and a block's share is what the file shrinks by when the block is filled with its
mean colour.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import SpecError

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
        # An element's bits are spread evenly over the pixels of its cell of the image.
        rows = np.arange(height) * cells.shape[0] // height
        columns = np.arange(width) * cells.shape[1] // width
        share = np.bincount(rows)[:, None] * np.bincount(columns)[None, :]
        total += (cells.numpy() / share)[rows][:, columns]
    return total


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
    """Draw an image, its map, and beside them another model's map and the difference, as PNG.

    Args:
        pixels: Image (H, W, 3) uint8 as the model sees it.
        ours: Map of the model.
        theirs: Map of the model that it is compared with, if any.
        path: PNG file to write.
    """
    maps = [ours] if theirs is None else [ours, theirs]
    columns = 2 if theirs is None else 4
    figure = Figure(figsize=(3.3 * columns, 3.9), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for panel in axes:
        panel.axis("off")
    axes[0].imshow(pixels)
    axes[0].set_title("the image", fontsize=9.5)
    grey = pixels.mean(2)
    largest = max(float(shown.bits.max()) for shown in maps)
    for panel, shown in zip(axes[1:], maps, strict=False):
        _overlay(figure, panel, grey, shown.bits, "viridis", 0.0, largest)
        panel.set_title(f"{_short(shown.model)}\n{shown.payload_bytes:,} bytes", fontsize=8.5)
    if theirs is not None:
        # Shares of each payload are compared, so that a smaller one is not blue all over.
        difference = ours.bits / ours.total_bits - theirs.bits / theirs.total_bits
        bound = float(np.abs(difference).max()) or 1.0
        _overlay(figure, axes[3], grey, difference, "RdBu_r", -bound, bound, label=False)
        axes[3].set_title("share of the bits: red, more here;\nblue, fewer here", fontsize=8.5)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def _overlay(
    figure: Figure,
    axes: Any,
    grey: NDArray[np.float64],
    values: NDArray[np.float32],
    colours: str,
    low: float,
    high: float,
    *,
    label: bool = True,
) -> None:
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    shown = axes.imshow(values, cmap=colours, vmin=low, vmax=high, alpha=0.72)
    bar = figure.colorbar(shown, ax=axes, orientation="horizontal", fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    if label:
        bar.set_label("bits per pixel", fontsize=7.5)
    else:
        bar.set_ticks([])


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"
