"""Files that are checkpoints, or look like one."""

import argparse
import collections
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from splitrun.errors import CheckpointError
from splitzoo.zoo.conversion.checkpoint import read_checkpoint

STATE = collections.OrderedDict(
    {
        "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
        "bn.num_batches_tracked": torch.tensor(7),
        "empty": torch.IntTensor(),
    }
)


def write(path, content):
    torch.save(content, path)
    return path


def archive(path, records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in records.items():
            file.writestr(f"archive/{name}", data)
    return path


def everything():
    """All that a checkpoint of sc2bench 0.0.3 or 0.1.1 has been seen to hold, and more."""
    network = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "model": STATE,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 8]).state_dict(),
        "best_value": np.float64(0.375),
        "config": {"models": {"key": "splittable_resnet", "betas": [0.5, None, True]}, 3: {1, 2}},
        "args": argparse.Namespace(
            config="some.yaml",
            seed=None,
            folder=pathlib.PosixPath("a/b"),
            numbers=[np.float32(1), np.int64(2), np.int32(3), np.bool_(True)],
            device=torch.device("cuda", 1),
            size=torch.Size([2, 3]),
        ),
    }


def equal(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
        for name, tensor in expected.items()
    )


def refuse(path, *sayings, **options):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **options)
    for saying in (str(path), *sayings):
        assert saying in str(caught.value)
    return caught.value
