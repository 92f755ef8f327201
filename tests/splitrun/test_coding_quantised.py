"""Quantised values as raw bytes."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from splitrun.coding import Codec
from splitrun.coding.quantised import QuantisedCoder
from splitrun.errors import BitstreamError, TablesError

SCALES = st.floats(2.0**-126, 2.0**127, width=32)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
INFINITY, NOT_A_NUMBER = float("inf"), float("nan")


def tensors(values, scale=0.5, zero_point=7):
    return (
        np.asarray(values, np.uint8),
        np.full((1, 1, 1), scale, np.float32),
        np.full((1, 1, 1), zero_point, np.int32),
    )


@settings(max_examples=100, deadline=None)
@given(
    values=SHAPES.flatmap(lambda shape: numpy_strategies.arrays(np.uint8, shape)),
    scale=SCALES,
    zero_point=st.integers(0, 255),
)
def test_any_values_come_back(values, scale, zero_point):
    sent = tensors(values, scale, zero_point)
    coder = QuantisedCoder(len(values))
    decoded = coder.decode(coder.encode(*sent), *coder.shape(*sent))
    for one, other in zip(decoded, sent, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_the_payload_is_the_documented_one():
    values = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert QuantisedCoder(2).encode(*tensors(values, 1.5, 200)) == bytes.fromhex(
        "0000c03fc8000102030405"
    )


def test_values_of_a_batch_may_lie_scattered_in_memory():
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8).transpose(0, 3, 1, 2)
    coder = QuantisedCoder(3)
    values, *_ = coder.decode(coder.encode(*tensors(batch[1])), 4, 5)
    np.testing.assert_array_equal(values, batch[1], strict=True)


def test_decoded_tensors_belong_to_the_caller():
    decoded = QuantisedCoder(1).decode(QuantisedCoder(1).encode(*tensors([[[1, 2]]])), 1, 2)
    assert all(tensor.flags.writeable for tensor in decoded)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (tensors([[[1]], [[2]], [[3]]]), r"values of uint8 \(3, "),
        ((np.zeros((2, 1, 1), np.int32), *tensors(0)[1:]), r"values of int32 \(2, "),
        (tensors(np.zeros((2, 1, 1)), scale=0), "scale 0.0 and"),
        (tensors(np.zeros((2, 1, 1)), scale=-1), "scale -1.0 and"),
        (tensors(np.zeros((2, 1, 1)), scale=NOT_A_NUMBER), "scale nan and"),
        (tensors(np.zeros((2, 1, 1)), scale=INFINITY), "scale inf and"),
        (tensors(np.zeros((2, 1, 1)), zero_point=256), "zero point 256"),
        (tensors(np.zeros((2, 1, 1)), zero_point=-1), "zero point -1"),
    ],
)
def test_what_no_quantiser_gives_is_not_encoded(sent, message):
    with pytest.raises(TablesError, match=message):
        QuantisedCoder(2).encode(*sent)


@pytest.mark.parametrize("scale", [0.0, -0.0, -1.0, INFINITY, -INFINITY, NOT_A_NUMBER])
def test_a_hostile_scale_is_refused(scale):
    with pytest.raises(BitstreamError, match="a scale of"):
        QuantisedCoder(1).decode(struct.pack("<fB", scale, 0) + b"\0", 1, 1)


@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=40))
def test_any_bytes_are_refused_or_decoded(payload):
    coder = QuantisedCoder(3)
    try:
        decoded = coder.decode(payload, 2, 4)
    except BitstreamError:
        return
    assert coder.encode(*decoded) == payload


@pytest.mark.parametrize("change", [-29, -5, -1, 1, 24])
def test_a_payload_of_another_length_is_refused(change):
    payload = QuantisedCoder(3).encode(*tensors(np.zeros((3, 2, 4))))
    other = payload[:change] if change < 0 else payload + bytes(change)
    with pytest.raises(BitstreamError, match=f"has {29 + change} bytes; expected were 29"):
        QuantisedCoder(3).decode(other, 2, 4)


def test_a_stream_of_absurd_size_is_refused():
    codec = Codec(QuantisedCoder(3), b"abcd", (1 << 12, 1 << 12))
    with pytest.raises(BitstreamError, match="symbols"):
        codec.frame(b"", (1 << 12, 1 << 12))
