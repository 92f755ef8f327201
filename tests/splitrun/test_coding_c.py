"""The coder in C, whole: the same streams as from Python, and one status for whatever is wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from board import BLOCKED, RUN
from c_compiler import SUPPORT, compile_c, library, needs_compiler
from golden_c import PATHS, golden_c
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from strategies import SPARSE_SYMBOLS, damaged, row_tables, sparse_tables, tables_and_symbols

from benchmarks.c_streams import CCoder, StatusError
from splitrun.coding import Codec, FactorizedCoder, c_library
from splitrun.coding.coder_file import KINDS, coder_file
from splitrun.coding.factorized import ContextCoder
from splitrun.coding.hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from splitrun.coding.quantised import QuantisedCoder
from splitrun.coding.stream import read_stream, write_stream
from splitrun.errors import BitstreamError, ForeignStreamError, TablesError

pytestmark = needs_compiler

ID = b"test"
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 19), st.integers(1, 19))
IDS = [f"{path.parent.name}-{path.stem}" for path in PATHS]


def in_c(codec: Codec) -> CCoder:
    return CCoder(coder_file(codec), library())


def arrays(shape):
    return numpy_strategies.arrays(np.int32, shape, elements=SPARSE_SYMBOLS, fill=st.just(0))


# The same streams


def test_golden_streams_are_of_every_kind():
    kinds = {type(golden_c(path).codec.coder) for path in PATHS}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_golden_streams_are_written_and_read(path):
    golden = golden_c(path)
    coder = in_c(golden.codec)
    assert coder.encode(*golden.tensors, level=golden.level) == golden.stream
    symbols, *hyper = golden.tensors
    level, found = coder.decode(golden.stream, golden.codec.coder.channels, *hyper[1:])
    assert level == golden.level
    for one, other in zip(found, [*hyper[:1], symbols], strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@settings(max_examples=80, deadline=None)
@given(tables_and_symbols(), st.booleans())
def test_any_symbols_under_any_tables(case, fixed):
    tables, symbols = case
    shape = symbols.shape[1:] if fixed else (3, 7)
    codec = Codec(FactorizedCoder(tables), ID, shape)
    coder, stream = in_c(codec), codec.compress(symbols)
    assert coder.encode(symbols) == stream
    np.testing.assert_array_equal(coder.decode(stream, len(symbols))[1][0], symbols, strict=True)


@settings(max_examples=80, deadline=None)
@given(st.data(), SHAPES)
def test_any_symbols_by_context_coding(data, shape):
    symbols = data.draw(arrays(shape))
    codec = Codec(ContextCoder(data.draw(sparse_tables(shape[0]))), ID, shape[1:])
    coder, stream = in_c(codec), codec.compress(symbols)
    assert coder.encode(symbols) == stream
    np.testing.assert_array_equal(coder.decode(stream, shape[0])[1][0], symbols, strict=True)


@settings(max_examples=80, deadline=None)
@given(st.data(), SHAPES, st.booleans())
def test_any_symbols_with_a_hyperprior(data, shape, context):
    y, z = data.draw(arrays(shape)), data.draw(arrays((2, 2, 3)))
    indexes = data.draw(numpy_strategies.arrays(np.uint8, shape, elements=st.integers(0, 4)))
    if context:
        tables = data.draw(sparse_tables(2)), data.draw(sparse_tables(shape[0], 5))
        codec = Codec(ContextHyperpriorCoder(*tables), ID, (2, 3))
    else:
        tables = row_tables(data.draw, 2), row_tables(data.draw, 5)
        codec = Codec(HyperpriorCoder(*tables), ID, (2, 3))
    coder, stream = in_c(codec), codec.compress(y, z, indexes.astype(np.int32))
    assert coder.encode(y, z, indexes) == stream
    _, found = coder.decode(stream, 2, indexes)
    for one, other in zip(found, (z, y), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([path for path in PATHS if "hyper" not in path.as_posix()]))
def test_damaged_payloads_end_as_in_python(data, path):
    golden = golden_c(path)
    frame = read_stream(golden.stream)
    payload = damaged(data, frame.payload)
    stream = write_stream(payload, frame.stream_id, frame.shape)
    coder = golden.codec.coder
    inner = coder.inner(golden.level) if coder.betas else coder
    shape = golden.tensors[0].shape
    try:
        if coder.betas and payload[:1] != bytes([golden.level]):
            raise BitstreamError("another level")
        expected = inner.decode(payload[bool(coder.betas) :], *shape[1:])[0]
    except BitstreamError:
        expected = None
    try:
        level, (found,) = in_c(golden.codec).decode(stream, shape[0])
        assert expected is not None or level != golden.level
    except StatusError as error:
        assert str(error) == "stream"
        assert expected is None
        return
    if expected is not None:
        np.testing.assert_array_equal(found, expected, strict=True)


# What is wrong


@settings(max_examples=60, deadline=None)
@given(data=st.data(), path=st.sampled_from(PATHS))
def test_damaged_streams_end_as_in_python(data, path):
    golden = golden_c(path)
    stream = damaged(data, golden.stream)
    try:
        golden.codec.unframe(stream)
        expected = None
    except ForeignStreamError:
        expected = "foreign"
    except BitstreamError:
        expected = "stream"
    if expected:
        with pytest.raises(StatusError, match=expected):
            in_c(golden.codec).decode(stream, golden.codec.coder.channels, *golden.tensors[2:])


def test_a_stream_of_another_model():
    golden = golden_c(PATHS[0])
    foreign = write_stream(read_stream(golden.stream).payload, b"else")
    with pytest.raises(StatusError, match="foreign"):
        in_c(golden.codec).decode(foreign, golden.codec.coder.channels)


@pytest.mark.parametrize("path", [path for path in PATHS if "hyper" in path.as_posix()])
def test_other_scale_indexes_than_the_devices(path):
    golden = golden_c(path)
    indexes = golden.tensors[2].copy()
    indexes[0, 0, 0] = not indexes[0, 0, 0]
    with pytest.raises(StatusError, match="desync"):
        in_c(golden.codec).decode(golden.stream, golden.codec.coder.channels, indexes)


def test_what_does_not_fit_the_coder():
    golden = golden_c(next(path for path in PATHS if path.stem == "context"))
    coder, (symbols,) = in_c(golden.codec), golden.tensors
    for wrong in (symbols[1:].copy(), symbols[:, :0].copy(), np.zeros((2, 1, 1 << 16), np.int32)):
        with pytest.raises(StatusError, match="argument"):
            coder.encode(wrong)
    with pytest.raises(StatusError, match="argument"):
        coder.encode(symbols, level=1)
    with pytest.raises(StatusError, match="argument"):
        coder.encode(symbols, symbols, np.zeros(symbols.shape, np.uint8))


def test_too_little_memory_and_too_small_a_buffer(monkeypatch):
    golden = golden_c(next(path for path in PATHS if path.stem == "context"))
    coder = in_c(golden.codec)
    for size in range(len(golden.stream)):
        with pytest.raises(StatusError, match="space"):
            coder.encode(*golden.tensors, capacity=size)
    assert coder.encode(*golden.tensors, capacity=len(golden.stream)) == golden.stream
    enough = coder.memory_bytes(*golden.tensors)
    # What is known of each symbol, and a quarter of them at once.
    assert 4 * golden.tensors[0].size < enough < 8 * golden.tensors[0].size
    monkeypatch.setattr(CCoder, "_memory", lambda self, *planes: np.empty(enough - 1, np.uint8))
    with pytest.raises(StatusError, match="memory"):
        coder.encode(*golden.tensors)
    with pytest.raises(StatusError, match="memory"):
        coder.decode(golden.stream, golden.codec.coder.channels)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_tables_that_are_cut_or_changed_are_refused(path):
    tables = golden_c(path).tables
    for changed in (b"", tables[:-4], tables + bytes(4), tables[:-1], b"SZC2" + tables[4:]):
        with pytest.raises(StatusError, match="tables"):
            CCoder(changed, library())
    with pytest.raises(StatusError, match="tables"):
        CCoder(tables[:40] + bytes([tables[40] ^ 1]) + tables[41:], library())


def test_kinds_that_are_not_in_c():
    with pytest.raises(TablesError, match="no coder of kind quantised in C; there are factorized"):
        coder_file(Codec(QuantisedCoder(3), ID, (4, 4)))


# The source


def test_it_compiles_without_a_warning_and_calls_nothing(tmp_path):
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wvla", "-Werror"]
    compile_c(tmp_path / "sz.o", *strict, "-O2", "-c", c_library.SOURCES / "sz.c")
    done = subprocess.run(["nm", "-u", "sz.o"], cwd=tmp_path, capture_output=True, text=True)
    # Where the compiler itself is allowed to call these, no library of C need be there.
    called = {line.split()[-1].lstrip("_") for line in done.stdout.splitlines()}
    assert called <= {"memcpy", "memset", "memcmp", "memmove", "stack_chk_fail"} | {
        "GLOBAL_OFFSET_TABLE_"
    }


def test_nothing_goes_beyond_its_buffers(tmp_path):
    sanitizers = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    trial = tmp_path / "trial.c"
    trial.write_text("int main(void) { return 0; }\n")
    try:
        compile_c(tmp_path / "trial", *sanitizers, trial)
    except AssertionError:
        pytest.skip("the C compiler has no sanitizers here")
    compile_c(tmp_path / "fuzz", *sanitizers, SUPPORT / "fuzz_coder.c")
    files = []
    for number, path in enumerate(PATHS):
        golden = golden_c(path)
        for name, content in (("bin", golden.tables), ("sz", golden.stream)):
            files.append(f"{number}.{name}")
            (tmp_path / files[-1]).write_bytes(content)
    done = subprocess.run(
        ["./fuzz", "5000", "1", *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["opened"] < 5000
    assert min(counts.values()) > 100


# The commands


def without_constriction(*words: object, cwd: Path, **environment: str):
    """Run ``python -m splitrun`` where constriction cannot be imported."""
    code = BLOCKED + "sys.modules['constriction'] = None\n" + RUN
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
    )


def test_a_bundle_compiles_its_coder_and_takes_it(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")

    def coder():
        code = "import sys; sys.modules['constriction'] = None\n"
        code += "from splitrun.coding.ans import BACKEND; print(BACKEND.NAME)"
        command = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(command, cwd=bundle, capture_output=True, text=True).stdout.strip()

    assert coder() == "plain Python coder"
    done = without_constriction("compile", "--json", cwd=bundle)
    made = json.loads(done.stdout)
    assert made["loads"] is True
    assert Path(made["library"]).parent == bundle / "splitrun" / "coding" / "c"
    assert coder() == "C coder"
    assert without_constriction("selftest", cwd=bundle).stdout.endswith("self-test passed\n")
    done = without_constriction("bench", "--json", "--iterations", "1", cwd=bundle)
    environment = json.loads(done.stdout)[0]["environment"]
    assert environment["constriction"] == "not installed: C coder"
    # What another source, or another machine, was compiled to is not loaded.
    Path(made["library"]).write_bytes(b"not a library")
    assert coder() == "plain Python coder"
    with (bundle / "splitrun" / "coding" / "c" / "sz.c").open("a") as source:
        source.write("/* changed */\n")
    again = json.loads(without_constriction("compile", "--json", cwd=bundle).stdout)
    assert again["library"] != made["library"]


def test_compiling_fails_in_one_sentence(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    for compiler, message in (
        ("no-such-compiler", "error: There is no C compiler here: no-such-compiler.\nInstall one"),
        ("false", "error: false cannot compile the coder: exit code 1"),
        ("true", "error: true cannot compile the coder: exit code 0"),
    ):
        done = without_constriction("compile", cwd=bundle, CC=compiler)
        assert done.returncode == 1
        assert done.stderr.startswith(message)
    assert not list(bundle.rglob("*.so"))


def test_the_command_coder_writes_what_a_program_needs(tiny_bundle, tmp_path):
    done = without_constriction("coder", tiny_bundle, "-o", tmp_path / "c", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = ["coder.bin", "device.c", "model.h", "sz.c", "sz.h"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == names
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "model.h"\nint main(void) {\n'
        "    static const float mean[] = MODEL_MEAN, std[] = MODEL_STD;\n"
        '    printf("%d %d %d", MODEL_SHORTER_SIDE, MODEL_HEIGHT, MODEL_WIDTH);\n'
        '    for (int i = 0; i < 3; i++) printf(" %.9g %.9g", mean[i], std[i]);\n'
        "    return 0;\n}\n"
    )
    compile_c(tmp_path / "main", f"-I{tmp_path / 'c'}", tmp_path / "main.c")
    said = subprocess.run([tmp_path / "main"], capture_output=True, text=True).stdout.split()
    preprocessing = json.loads((tiny_bundle / "manifest.json").read_text())["spec"]["preprocessing"]
    sizes = [preprocessing["resize"], *preprocessing["crop"]]
    assert [int(word) for word in said[:3]] == sizes
    pairs = zip(preprocessing["mean"], preprocessing["std"], strict=True)
    expected = [np.float32(value) for pair in pairs for value in pair]
    assert [np.float32(word) for word in said[3:]] == expected
    again = without_constriction("coder", tiny_bundle, "-o", tmp_path / "c", cwd=tmp_path)
    assert again.returncode == 1
    assert "--force" in again.stderr
