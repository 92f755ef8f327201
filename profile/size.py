"""What the device must hold: encoder parameters and bits, counted three ways."""

import torch

from splitrun.bundle import Bundle
from splitrun.coding import Coder

from ..zoo.bottlenecks.factorized_prior import TABLE_BUFFERS
from ..zoo.split_model import SplitModel

_BITS_OF_BOOL_IN_SC2BENCH = 2


def encoder_parameters(model: SplitModel) -> int:
    """Return the number of learned parameters on the device: encoder, and h_a and h_s if any."""
    return sum(parameter.numel() for parameter in model.device_parameters())


def encoder_bits(model: SplitModel) -> int:
    """Return the encoder size of the SC2 paper's Eq. 1: the bits of the encoder's parameters."""
    return sum(one.numel() * one.element_size() * 8 for one in model.device_parameters())


def sc2bench_encoder_bits(model: SplitModel, coder: Coder | None = None) -> int | None:
    """Return the encoder size as sc2bench 0.1.1's ``analyze_model_size`` counts it.

    It adds up the state dict of the encoder and of the entropy models: buffers and entropy tables
    too, and a bool as 2 bits. For comparison with the paper's figures alone.

    Args:
        model: Of which the architecture and, unless a coder is given, the tables are counted.
        coder: Whose tables take the place of the model's own.

    Returns:
        The bits; None where the coder is context coding, which sc2bench has not.
    """
    if coder is not None and coder.is_context:
        return None
    bits = 0
    for module in (model.encoder, model.bottleneck):
        for name, tensor in module.state_dict().items():
            if coder is not None and name.rpartition(".")[2] in TABLE_BUFFERS:
                continue
            of_one = 8 * tensor.element_size()
            bits += tensor.numel() * (
                _BITS_OF_BOOL_IN_SC2BENCH if tensor.dtype == torch.bool else of_one
            )
    if coder is not None:
        tables = (value for name, value in coder.arrays().items() if _is_table(name))
        bits += 32 * sum(table.size for table in tables)
    return bits


def _is_table(name: str) -> bool:
    return name.endswith(("cdf", "length", "offset"))


def deployed_bytes(bundle: Bundle) -> tuple[int, int]:
    """Return the bytes of the device graph's files and of the tables' file."""
    graph = (bundle.device.file, bundle.device.weights)
    sizes = [bundle.path(name).stat().st_size for name in graph if name]
    return sum(sizes), bundle.path(bundle.manifest.coding.tables).stat().st_size
