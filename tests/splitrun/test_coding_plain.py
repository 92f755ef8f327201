"""What boards without constriction code with, plain Python or C: byte for byte the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from board import BLOCKED, RUN
from c_compiler import COMPILER, library, needs_compiler
from golden_streams import FOLDERS, GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from strategies import tables_and_symbols

from splitrun.coding import (
    CODERS,
    FactorizedCoder,
    ans,
    c_ans,
    c_library,
    constriction_ans,
    plain_ans,
)
from splitrun.coding.ans import Stack
from splitrun.coding.factorized import ContextCoder
from splitrun.errors import BitstreamError

# To import it then fails, as where it is not installed.
WITHOUT = "import sys; sys.modules['constriction'] = None\n"

WORDS = st.lists(st.integers(0, 2**32 - 1), max_size=8).map(
    lambda words: np.array([*words, *([] if not words or words[-1] else [1])], np.uint32)
)


ENGINES = (constriction_ans, plain_ans, *((c_ans,) if COMPILER else ()))


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Let the coder in C be there, wherever it can be."""
    with pytest.MonkeyPatch.context() as patch:
        if COMPILER:
            loaded = c_library.load(library())
            patch.setattr(c_library, "library", lambda: loaded)
        yield


def assert_all_alike(found):
    first, *others = found
    assert len(others) == len(ENGINES) - 1
    for other in others:
        np.testing.assert_array_equal(first, other, strict=True)


def under_each(act):
    """Do the same under each engine, and return what all give: bytes, the error or several."""
    outcomes = []
    for engine in ENGINES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ans, "BACKEND", engine)
            try:
                outcomes.append(act())
            except BitstreamError as error:
                outcomes.append(repr(error))
    assert len(outcomes) == len(ENGINES)
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


def test_here_the_engines_are_three():
    assert ans.BACKEND is constriction_ans
    names = [engine.NAME for engine in (constriction_ans, plain_ans, c_ans)]
    assert names == ["constriction", "plain Python coder", "C coder"]


@needs_compiler
def test_one_of_the_engines_is_in_c():
    assert ENGINES[-1] is c_ans
    assert c_library.library()._name == str(library())


# The engines alone


@st.composite
def rows(draw):
    """Frequencies of rows, 2**24 each: of any precision up to the coder's own."""
    shift = draw(st.sampled_from([0, 8, 23]))
    top = 1 << (24 - shift)
    cuts = st.sets(st.integers(1, top - 1) | st.just(1) | st.just(top - 1), min_size=1, max_size=9)
    drawn = draw(st.lists(cuts, min_size=1, max_size=4))
    return [np.diff([0, *sorted(row), top]).astype(np.int64) << shift for row in drawn]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), frequencies=rows(), words=WORDS)
def test_any_slots_on_any_stack(data, frequencies, words):
    counts = np.array([data.draw(st.integers(0, 9)) for _ in frequencies])
    counts[data.draw(st.integers(0, counts.size - 1))] += 1
    slots = np.concatenate(
        [
            data.draw(numpy_strategies.arrays("i4", n, elements=st.integers(0, row.size - 1)))
            for row, n in zip(frequencies, counts.tolist(), strict=True)
        ]
    )
    left = []
    for engine in ENGINES:
        models, coder = engine.AnsModels(frequencies), engine.AnsCoder(words)
        coder.encode(slots, models, counts)
        left.append(coder.words())
        np.testing.assert_array_equal(coder.decode(models, counts), slots, strict=True)
        np.testing.assert_array_equal(coder.words(), words, strict=True)
    assert_all_alike(left)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), frequencies=rows(), words=WORDS)
def test_any_words_are_read_to_their_end_and_beyond(data, frequencies, words):
    most = st.integers(0, data.draw(st.sampled_from([3, 40])))
    counts = np.array([data.draw(most) for _ in frequencies])
    counts[-1] += 1
    read, left = [], []
    for engine in ENGINES:
        coder = engine.AnsCoder(words)
        read.append(coder.decode(engine.AnsModels(frequencies), counts))
        left.append(coder.words())
        assert coder.is_empty() is (left[-1].size == 0)
    assert_all_alike(read)
    assert_all_alike(left)


@settings(max_examples=100, deadline=None)
@given(
    words=WORDS,
    pairs=st.lists(
        st.integers(1, 18).flatmap(
            lambda bits: st.tuples(st.integers(0, 2**bits - 1), st.just(bits))
        ),
        min_size=1,
        max_size=20,
    ),
)
def test_any_bits_on_any_stack(words, pairs):
    values, widths = np.array(pairs, np.int32).T
    left = []
    for engine in ENGINES:
        coder = engine.AnsCoder(words)
        left.append(coder.decode_bits(widths))
        left.append(coder.words())
        coder.encode_bits(values, widths)
        left.append(coder.words())
        np.testing.assert_array_equal(coder.decode_bits(widths), values, strict=True)
    for same in (left[0::3], left[1::3], left[2::3]):
        assert_all_alike(same)


# Payloads


@settings(max_examples=80, deadline=None)
@given(tables_and_symbols())
def test_any_symbols_under_any_tables(case):
    tables, symbols = case

    def act():
        coder = FactorizedCoder(tables)
        payload = coder.encode(symbols)
        np.testing.assert_array_equal(
            coder.decode(payload, *symbols.shape[1:])[0], symbols, strict=True
        )
        return payload

    assert type(under_each(act)) is bytes


@settings(max_examples=80, deadline=None)
@given(case=tables_and_symbols(), data=st.data())
def test_damaged_payloads(case, data):
    tables, symbols = case
    payload = bytearray(FactorizedCoder(tables).encode(symbols))
    for _ in range(data.draw(st.integers(0, 3))):
        if payload:
            place = data.draw(st.integers(0, len(payload) - 1))
            payload[place] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])

    def act():
        return FactorizedCoder(tables).decode(cut, *symbols.shape[1:])[0].tobytes()

    under_each(act)


@settings(max_examples=80, deadline=None)
@given(case=tables_and_symbols(), payload=st.binary(max_size=60))
def test_payloads_of_nothing_in_particular(case, payload):
    tables, symbols = case

    def act():
        # What is left afterwards counts too: a decoder would refuse nearly all of these.
        stack = Stack(payload)
        popped = FactorizedCoder(tables)._models.pop(stack, symbols.shape)
        return popped.tobytes(), stack.payload()

    under_each(act)


def context_case():
    with np.load(GOLDEN / "context" / "context.npz") as golden:
        return CODERS["context"].from_parts({}, golden).tables, golden["sent_0"]


def test_damaged_payloads_of_a_context_coder():
    tables, symbols = context_case()
    payload = ContextCoder(tables).encode(symbols)
    rng = np.random.default_rng(1)
    payloads = [payload[:end] for end in rng.integers(0, len(payload), 20)]
    payloads += [rng.bytes(size) for size in rng.integers(1, 2 * len(payload), 20)]
    payloads += [payload + b"\1", b"", b"\1"]

    def act():
        coder = ContextCoder(tables)
        assert coder.encode(symbols) == payload
        outcomes = []
        for one in payloads:
            try:
                outcomes.append(coder.decode(one, *symbols.shape[1:])[0].tobytes())
            except BitstreamError as error:
                outcomes.append(repr(error))
        return outcomes

    under_each(act)


def test_more_symbols_than_are_lists_at_a_time():
    frequencies = [np.array([3, 1, (1 << 24) - 4]), np.array([1 << 23, 1 << 23])]
    counts = np.array([plain_ans._BLOCK + 7, plain_ans._BLOCK - 7])
    slots = np.random.default_rng(0).integers(0, 2, counts.sum()).astype(np.int32)
    words = []
    for engine in ENGINES:
        models, coder = engine.AnsModels(frequencies), engine.AnsCoder(np.zeros(0, np.uint32))
        coder.encode(slots, models, counts)
        words.append(coder.words())
        np.testing.assert_array_equal(coder.decode(models, counts), slots, strict=True)
        assert coder.is_empty()
    assert_all_alike(words)


# Where constriction cannot be imported


def python(code: str, cwd: Path, *arguments: str) -> str:
    """Run Python where constriction cannot be imported, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT + code, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_golden_streams_are_written_and_read_as_ever():
    run = 'import runpy; runpy.run_path("support/golden_streams.py", run_name="__main__")'
    result = json.loads(python(run, Path(__file__).parents[1]))
    assert result["engine"] == plain_ans.NAME
    paths = [path for name in FOLDERS for path in (GOLDEN / name).glob("*.npz")]
    assert len(paths) > 8
    names = [f"{path.parent.name}/{path.stem}" for path in paths]
    assert result["outcomes"] == dict.fromkeys(names, "same")


def test_a_bundle_without_constriction(tiny_bundle):
    run = BLOCKED + RUN
    assert python(run, tiny_bundle, "selftest").endswith("self-test passed\n")
    halves = json.loads(python(run, tiny_bundle, "bench", "--json", "--iterations", "2"))
    assert [half["environment"]["constriction"] for half in halves] == [
        "not installed: plain Python coder"
    ] * 2
