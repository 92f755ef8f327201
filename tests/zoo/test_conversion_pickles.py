"""Hostile checkpoints: nothing that they ask for is ever run."""

import argparse
import collections
import io
import os
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import STATE, archive, equal, everything, refuse, write
from torch import nn

from splitzoo.zoo.conversion import checkpoint as reading
from splitzoo.zoo.conversion.checkpoint import read_checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.pt"


class Evil:
    """Asks to be made by calling any function."""

    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


EVIL = {
    f"{os.system.__module__}.system": Evil(os.system, "touch {trace}"),
    "builtins.eval": Evil(eval, "open({trace!r}, 'w')"),
    "builtins.exec": Evil(exec, "open({trace!r}, 'w')"),
    "builtins.getattr": Evil(getattr, [], "clear"),
    # Python 2's name, which this protocol uses.
    "commands.check_call": Evil(subprocess.check_call, ["touch", "{trace}"]),
    "io.open": Evil(io.open, "{trace}", "w"),
    "builtins.bytearray": Evil(bytearray, 1 << 40),
    "torch.serialization.load": Evil(torch.load, "{trace}"),
    "torch.storage._load_from_bytes": Evil(torch.storage._load_from_bytes, b"any"),
    "torch.nn.modules.linear.Linear": Evil(nn.Linear, 1 << 20, 1 << 20),
    "numpy.ndarray": Evil(np.ndarray, (1 << 40,)),
    "pathlib.Path": Evil(Path, "a"),
}
PLACES = {
    "in place of all": lambda evil: evil,
    "in place of the model": lambda evil: {"model": evil},
    "as a tensor": lambda evil: {"model": {**STATE, "conv.weight": evil}},
    "as a name": lambda evil: {"model": {**STATE, evil: STATE["conv.weight"]}},
    "beside": lambda evil: {"model": STATE, "optimizer": {"state": [evil]}},
    "in an attribute": lambda evil: {"model": STATE, "args": argparse.Namespace(a=evil)},
}


def armed(evil, trace):
    function, given = evil.call

    def fill(one):
        if isinstance(one, list):
            return [fill(word) for word in one]
        return one.replace("{trace!r}", repr(trace)).replace("{trace}", trace) if one else one

    return Evil(function, *(fill(one) if isinstance(one, str | list) else one for one in given))


@pytest.mark.parametrize("asked", EVIL)
def test_a_pickle_that_asks_for_more_is_refused_by_what_it_asks_for(path, asked):
    trace = path.with_name("trace")
    write(path, {"model": STATE, "x": armed(EVIL[asked], str(trace))})
    error = refuse(path, f"asks for {asked.removeprefix('builtins.')},")
    assert "Do not open this one" in error.next_step
    assert not trace.exists()


@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_hides(path, place):
    trace = path.with_name("trace")
    asked, evil = next(iter(EVIL.items()))
    write(path, PLACES[place](armed(evil, str(trace))))
    refuse(path, asked)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_other_protocols_are_refused(path, protocol):
    torch.save({"model": STATE, "x": EVIL["builtins.eval"]}, path, pickle_protocol=protocol)
    refuse(path)


def raw(path, code):
    return archive(path, {"data.pkl": code, "version": "3\n", "byteorder": "little"})


@pytest.mark.parametrize(
    ("code", "saying"),
    [
        (b"\x80\x02(S'touch trace'\nios\nsystem\n.", "cannot be read"),
        (b"\x80\x02X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.", "cannot be read"),
        (b"\x80\x02\x82\x05.", "cannot be read"),
        (b"\x80\x02c" + b"torch\n_dynamo.config\n.", "torch._dynamo.config"),
        (b"\x80\x02X\x02\x00\x00\x00osq\x00h\x00h\x00\x93.", "cannot be read"),
        (b"\x80\x02c\xff\xfe\nx\n.", "cannot be read"),
        (b"\x80\x02]", "cannot be read"),
        (b"", "cannot be read"),
        (b"\x80\x02N.", "there are no tensors in it"),
    ],
)
def test_opcodes_by_hand(path, code, saying):
    refuse(raw(path, code), saying)


def encoding(*codecs):
    """A pickle of a string encoded again and again, each result being what is encoded next."""
    code = b"\x80\x02" + b"c_codecs\nencode\n" * len(codecs) + b"X\x01\x00\x00\x00a"
    for codec in codecs:
        code += b"X" + struct.pack("<I", len(codec)) + codec.encode() + b"\x86R"
    return code + b"."


def test_bytes_cannot_grow_by_being_encoded_again(path):
    tracemalloc.start()
    refuse(raw(path, encoding("latin1", *["hex"] * 40)), "encodes a bytes as 'hex'")
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    refuse(raw(path, encoding("rot13")), "encodes a str as 'rot13'")


def test_a_pickle_of_many_operations_is_refused_unread(path, monkeypatch):
    write(path, everything())
    monkeypatch.setattr(reading, "_PICKLE_LIMIT_BYTES", 1000)
    refuse(path, "its pickle is larger than")
    assert reading.LIMIT_BYTES == 4 * 1024**3


def test_the_list_of_torch_is_left_as_it_was(path):
    known = torch._weights_only_unpickler._get_allowed_globals
    before = dict(known())
    read_checkpoint(write(path, everything()))
    assert known() == before


class Hiding:
    """A dictionary whose own methods are hidden by attributes."""

    def __reduce__(self):
        hidden = dict.fromkeys(("keys", "items", "values", "get"), "no method")
        return collections.OrderedDict, (), hidden, None, iter(STATE.items())


def test_methods_of_a_dictionary_that_are_hidden_are_not_used(path):
    read = read_checkpoint(write(path, {"model": Hiding()}))
    assert equal(read.tensors, STATE)
    assert equal(read_checkpoint(write(path, Hiding())).tensors, STATE)


def test_numbers_of_numpy_become_numbers():
    kind = reading._NumberType("f8", False, True)
    kind.__setstate__((3, ">", None, None, None, -1, -1, 0))
    assert reading._number(kind, struct.pack(">d", 0.375)) == 0.375
    with pytest.raises(KeyError):
        reading._number(reading._NumberType("V999999999"), b"")


def test_what_is_allowed_is_no_more_than_this():
    assert {name for name in reading.ALLOWED if not name.endswith("Storage")} == {
        *("_codecs.encode", "argparse.Namespace", "builtins.set"),
        *("collections.Counter", "collections.OrderedDict", "numpy.dtype"),
        *("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"),
        *("pathlib.PosixPath", "pathlib.WindowsPath", "torch.Size", "torch.device"),
        *("torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2"),
    }
    assert sum(name.startswith("torch.") for name in reading.ALLOWED) == 4 + 10
