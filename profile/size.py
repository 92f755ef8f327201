"""Count what the device holds: parameters, encoder bits in two ways, and deployed bytes."""

import torch

from splitrun.bundle import Bundle
from splitrun.coding import Coder

from ..zoo.bottlenecks.factorized_prior import TABLE_BUFFERS
from ..zoo.parts import encoder_bits
from ..zoo.split_model import SplitModel

__all__ = [
    "deployed_bytes",
    "encoder_bits",
    "encoder_parameters",
    "sc2bench_encoder_bits",
]

_BITS_OF_BOOL_IN_SC2BENCH = 2


def encoder_parameters(model: SplitModel) -> int:
    """Return the number of learned parameters on the device: encoder, and h_a and h_s if any."""
    return sum(parameter.numel() for parameter in model.device_parameters())


def sc2bench_encoder_bits(model: SplitModel, coder: Coder | None = None) -> int | None:
    """Return the encoder size as sc2bench 0.1.1's ``analyze_model_size`` counts it.

    It adds up the state dicts of the encoder and of the entropy models, with buffers and entropy
    tables, and counts a bool as 2 bits. Only for comparison with the paper's figures.

    Args:
        model: Model whose architecture and, without a coder, whose tables are counted.
        coder: Entropy coder whose tables replace the model's own.

    Returns:
        The bits; None for context coding, which sc2bench lacks.
    """
    if coder is not None and coder.is_context:
        return None
    bits = 0
    for module in (model.encoder, model.bottleneck):
        for name, tensor in module.state_dict().items():
            if name.startswith("synthesis."):
                continue  # sc2bench has h_s in floats, which are counted
            if coder is not None and name.rpartition(".")[2] in TABLE_BUFFERS:
                continue
            boolean = tensor.dtype == torch.bool
            element_bits = _BITS_OF_BOOL_IN_SC2BENCH if boolean else 8 * tensor.element_size()
            bits += tensor.numel() * element_bits
    if coder is not None:
        tables = (value for name, value in coder.arrays().items() if _is_table(name))
        bits += 32 * sum(table.size for table in tables)
    return bits


def _is_table(name: str) -> bool:
    return name.endswith(("cdf", "length", "offset"))


def deployed_bytes(bundle: Bundle) -> tuple[int, int]:
    """Return the bytes of the device graph's files and of the tables' file."""
    sizes = [bundle.path(name).stat().st_size for name in bundle.device.graph.files]
    return sum(sizes), bundle.path(bundle.manifest.coding.tables).stat().st_size
