"""Compile an exported program for ExecuTorch's XNNPACK, in an environment that has executorch.

python torch_to_pte.py SOURCE TARGET
"""

import sys
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
    XnnpackPartitioner,
)
from executorch.exir import (  # pyright: ignore[reportMissingImports]
    to_edge_transform_and_lower,
)


def main(source: str, target: str) -> None:
    """Write the file."""
    lowered = to_edge_transform_and_lower(
        torch.export.load(source), partitioner=[XnnpackPartitioner()]
    )
    Path(target).write_bytes(lowered.to_executorch().buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
