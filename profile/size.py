"""What the device must hold: encoder parameters and bits, counted three ways."""

from pathlib import Path

import torch

from ..export.runtime.bundle import Bundle
from ..zoo.coding import FactorizedTables
from ..zoo.split_model import SplitModel

_BITS_OF_BOOL_IN_SC2BENCH = 2


def encoder_parameters(model: SplitModel) -> int:
    """Return the number of learned parameters of the encoder."""
    return sum(parameter.numel() for parameter in model.encoder.parameters())


def encoder_bits(model: SplitModel) -> int:
    """Return the encoder size of the SC2 paper's Eq. 1: the bits of the encoder's parameters."""
    return sum(
        parameter.numel() * parameter.element_size() * 8 for parameter in model.encoder.parameters()
    )


def sc2bench_encoder_bits(model: SplitModel, tables: FactorizedTables | None = None) -> int:
    """Return the encoder size as sc2bench 0.1.1's ``analyze_model_size`` counts it.

    It adds up the state dict of the encoder and of the entropy bottleneck: buffers and entropy
    tables too, and a bool as 2 bits. For comparison with the paper's figures alone.

    Args:
        model: Of which the architecture and, unless given, the tables are counted.
        tables: That take the place of the model's own.
    """
    bits = 0
    for module in (model.encoder, model.coder.entropy_bottleneck):
        for name, tensor in module.state_dict().items():
            if tables is not None and name in ("_quantized_cdf", "_cdf_length", "_offset"):
                continue
            of_one = 8 * tensor.element_size()
            bits += tensor.numel() * (
                _BITS_OF_BOOL_IN_SC2BENCH if tensor.dtype == torch.bool else of_one
            )
    if tables is not None:
        bits += 32 * (tables.cdf.size + tables.length.size + tables.offset.size)
    return bits


def deployed_bytes(bundle: Bundle) -> tuple[int, int]:
    """Return the bytes of the device graph's file and of the tables' file."""
    return _size(bundle.device.path), _size(bundle.part_paths["tables"])


def _size(path: Path) -> int:
    return path.stat().st_size
