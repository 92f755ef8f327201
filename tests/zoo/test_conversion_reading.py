"""Reading checkpoints: what they may hold, damaged files, and claims that are not true."""

import collections
import io
import pickle
import struct
import tarfile
import tracemalloc
import zipfile

import pytest
import torch
from checkpoint_files import STATE, archive, equal, everything, refuse, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from splitrun.errors import CheckpointError
from splitzoo.zoo.conversion.checkpoint import read_checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.pt"


# What they may hold


def test_all_that_sc2bench_writes_is_read(path):
    read = read_checkpoint(write(path, everything()))
    assert equal(read.tensors, STATE)
    assert read.beside == ("args", "best_value", "config", "lr_scheduler", "optimizer")
    assert read.path == path
    assert not read.parallel
    assert len(read.sha256) == 64


def test_a_state_dict_alone_and_parameters_are_read(path):
    read = read_checkpoint(write(path, STATE))
    assert equal(read.tensors, STATE)
    assert read.beside == ()
    weight = nn.Parameter(torch.ones(3))
    read = read_checkpoint(write(path, {"model": {"weight": weight}}))
    assert torch.equal(read.tensors["weight"], weight)


def test_the_names_of_a_model_trained_in_parallel_lose_what_that_added(path):
    state = {f"module.{name}": tensor for name, tensor in STATE.items()}
    read = read_checkpoint(write(path, {"model": state}))
    assert equal(read.tensors, STATE)
    assert read.parallel
    # One name that begins so is only a name.
    state = {"module.weight": torch.ones(1), "bias": torch.ones(1)}
    read = read_checkpoint(write(path, {"model": state}))
    assert equal(read.tensors, state)
    assert not read.parallel


# Files that are no checkpoints, and claims that are not true


class Storage:
    """Stands for a storage that a pickle only claims to have."""

    def __init__(self, numel):
        self.numel = numel


class Claim:
    """A tensor of a size, in a storage of a size."""

    def __init__(self, numel, *size):
        self.numel, self.size = numel, size

    def __reduce__(self):
        strides = (1,) * len(self.size)
        given = (Storage(self.numel), 0, self.size, strides, False, collections.OrderedDict())
        return torch._utils._rebuild_tensor_v2, given


class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", torch.FloatStorage, "0", "cpu", obj.numel)
        return None


def claimed(claim):
    stream = io.BytesIO()
    Pickler(stream, 2).dump({"model": {"weight": claim}})
    return stream.getvalue()


def claim_in_zip(path, claim):
    data = {"data/0": bytes(64), "version": "3\n", "byteorder": "little"}
    return archive(path, {"data.pkl": claimed(claim), **data})


def test_true_claims_are_read(path):
    read = read_checkpoint(claim_in_zip(path, Claim(16, 4, 4)))
    assert equal(read.tensors, {"weight": torch.zeros(4, 4)})
    # A storage that claims more than its tensor needs takes no memory.
    read = read_checkpoint(claim_in_zip(path, Claim(1 << 40, 16)))
    assert equal(read.tensors, {"weight": torch.zeros(16)})
    assert read.tensors["weight"].untyped_storage().nbytes() < path.stat().st_size


@pytest.mark.parametrize(
    "claim",
    [
        Claim(1 << 40, 1 << 40),
        Claim(16, 1 << 40),
        Claim(16, 1 << 60, 1 << 60),
        Claim(16, -1),
        Claim(-16, 16),
        Claim(1 << 12, 1 << 12),
    ],
    ids=lambda claim: f"{claim.size} of {claim.numel}",
)
def test_tensors_larger_than_the_file_are_refused(path, claim):
    refuse(claim_in_zip(path, claim))


@pytest.mark.parametrize("size", [1 << 20, 1 << 27])
def test_records_that_unpack_to_more_are_refused_before_they_are(path, size):
    archive(path, {"data.pkl": b"0" * 8, "data/0": bytes(size)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < size / 100
    tracemalloc.start()
    refuse(path, "compressed")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_records_that_overlap_and_a_flipped_bit_are_refused(path):
    content = bytearray(write(path, {"model": STATE}).read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 20 : place + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(content)
    refuse(path, "larger than the file")
    content = bytearray(write(path, {"model": {"weight": torch.full((1000,), 0.1)}}).read_bytes())
    content[content.index(struct.pack("<f", 0.1)) + 2000] ^= 1
    path.write_bytes(content)
    refuse(path, "data/0 is damaged")


@pytest.mark.parametrize("part", [0, 0.2, 0.6, 0.95, 0.999])
def test_a_file_that_is_cut_short_is_refused(path, part):
    content = write(path, everything()).read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    refuse(path, "released" if part else "cannot be read")


def test_a_large_file_is_refused_unread(path):
    write(path, {"model": STATE})
    size = path.stat().st_size
    assert read_checkpoint(path, limit_bytes=size).tensors.keys() == STATE.keys()
    refuse(path, f"up to {size - 1:,}", limit_bytes=size - 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"\x89PNG\r\n", b"model: resnet50\n", b"\x80", b"\x80\x02", b"PK\x03\x04ab"],
)
def test_what_is_no_checkpoint_is_refused(path, content):
    path.write_bytes(content)
    refuse(path, "cannot be read as a checkpoint")


def test_other_formats_are_refused(tmp_path, path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    refuse(path, "no zip file, which torch writes since version 1.6")
    with tarfile.open(path, "w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            file.addfile(tarfile.TarInfo(name))
    refuse(path, "no zip file")
    refuse(archive(path, {"word/document.xml": "<a/>"}), "not one that torch wrote")
    scripted = {"constants.pkl": b"\x80\x02).", "code/a.py": ""}
    refuse(archive(path, {"data.pkl": pickle.dumps({}, 2), **scripted}))
    refuse(write(path, {"model": {"a": torch.eye(2).to_sparse()}}), "_rebuild_sparse_tensor")
    assert "--all" in refuse(tmp_path, "is a folder").next_step
    refuse(tmp_path / "none.pt", "There is no checkpoint")


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        ({}, "no tensors"),
        ({"model": {}}, "no tensors"),
        ([torch.ones(1)], "no tensors"),
        (torch.ones(1), "no tensors"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "its 'b' is no tensor"),
        ({"model": {"a": torch.ones(1), 3: torch.ones(1)}}, "its 3 is no tensor"),
        ({"state_dict": STATE}, "its 'state_dict' is no tensor"),
        ({"model": [STATE]}, "its 'model' is no tensor"),
    ],
)
def test_what_holds_no_model_is_refused(path, content, saying):
    assert "state dict" in refuse(write(path, content), saying).next_step


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "some.pt"
    return write(path, everything()).read_bytes()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(content, tmp_path, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "some.pt"
    path.write_bytes(damaged)
    try:
        read = read_checkpoint(path)
    except CheckpointError:
        return
    assert all(isinstance(one, torch.Tensor) for one in read.tensors.values())
