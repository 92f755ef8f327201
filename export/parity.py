"""Hold exported graphs against PyTorch before anybody gets to use them."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ParityError
from ..zoo.split_model import SplitModel
from .manifest import Parity
from .runtime.bundle import Bundle
from .runtime.halves import Device, Edge
from .runtime.selftest import (
    OUTPUT_TOLERANCE,
    TIE_MARGIN,
    Record,
    compare_outputs,
    compare_symbols,
)


def picture(shape: tuple[int, int, int], seed: int) -> NDArray[np.float32]:
    """Make a seeded test picture with the spectrum of photographs, amplitude falling as 1/f.

    Args:
        shape: Channels, height, width.
        seed: Of the noise.

    Returns:
        (1, channels, height, width) float32, mean 0 and variance 1.
    """
    channels, height, width = shape
    noise = np.random.default_rng(seed).normal(size=(channels, height, width))
    # Photographs' channels mostly rise and fall together.
    noise += 2 * noise[:1]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    image = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    image = (image - image.mean()) / image.std()
    return image[None].astype(np.float32)


def record_run(model: SplitModel, seed: int) -> Record:
    """Run PyTorch on a test picture and keep every step."""
    image = picture(model.spec.input_shape, seed)
    with torch.no_grad():
        latent = model.encoder(torch.from_numpy(image))
        centred = (latent - model.coder.medians).numpy()
        symbols = model.coder.symbols(latent)
        output = model.decoder(model.coder.dequantise(symbols)).numpy()
    ties = np.abs(centred - np.floor(centred) - 0.5) < TIE_MARGIN
    codes = symbols.numpy()
    return Record(image, codes, ties, output, model.codec.compress(codes[0]))


def check_parity(bundle: Bundle, records: Iterator[Record], *, dynamic_batch: bool) -> Parity:
    """Compare a bundle's halves with PyTorch's records.

    Raises:
        ParityError: A symbol differs beyond a tie, an output beyond the tolerance, a stream does
            not give back its symbols, or the output does not change with the picture.
    """
    device, edge = Device(bundle), Edge(bundle)
    checked: list[Record] = []
    differing, worst = 0, 0.0
    for record in records:
        differing += compare_symbols(device.symbols(record.image), record.symbols, record.ties)
        if not np.array_equal(edge.symbols(record.stream), record.symbols):
            raise ParityError("A stream decodes to other symbols than went in.")
        error = compare_outputs(edge.output(record.symbols), record.output, OUTPUT_TOLERANCE)
        worst = max(worst, error)
        checked.append(record)
    first, *others = checked
    if not any(np.any(other.symbols != first.symbols) for other in others):
        raise ParityError("The device graph gives the same symbols for different pictures.")
    if not any(np.any(other.output != first.output) for other in others):
        raise ParityError("The edge graph gives the same output for different symbols.")
    if dynamic_batch:
        _check_batch(device, edge, checked)
    return Parity(
        images=len(checked),
        symbols=sum(record.symbols.size for record in checked),
        symbols_differing=differing,
        symbols_tied=sum(int(record.ties.sum()) for record in checked),
        tie_margin=TIE_MARGIN,
        output_max_relative_error=worst,
        output_tolerance=OUTPUT_TOLERANCE,
        streams_decoded=True,
    )


def _check_batch(device: Device, edge: Edge, records: list[Record]) -> None:
    def joined(name: str) -> NDArray:
        return np.concatenate([getattr(record, name) for record in records])

    compare_symbols(device.symbols(joined("image")), joined("symbols"), joined("ties"))
    compare_outputs(edge.output(joined("symbols")), joined("output"), OUTPUT_TOLERANCE)
