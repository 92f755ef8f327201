"""The coder in C beside constriction and plain Python: the same bytes, and the time that it takes.

    python -m benchmarks.c_coder

Random tables, random symbols, escapes among them: constriction and the C of whole streams must
write the same bytes, and C must read the symbols back; so must, in each twentieth case,
constriction, plain Python and the C behind splitrun. The first that does not ends the run;
Ctrl-C ends the cases early, and the page says how many there were. Then
both coders take the same two latents in turns, in one process: one under static tables, and one by
context coding, which in Python is numpy around either. Time is that of the thread on the processor,
which other programs on the machine change little.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.c_streams import CCoder
from splitrun.coding import (
    Codec,
    FactorizedCoder,
    FactorizedTables,
    ans,
    c_ans,
    c_library,
    constriction_ans,
    plain_ans,
)
from splitrun.coding.coder_file import coder_file
from splitrun.coding.context.sparse import SparseTables
from splitrun.coding.factorized import ContextCoder
from splitrun.files import new_file
from splitrun.machine import cores, machine, versions
from splitzoo import zoo

RESULTS = Path(__file__).parent / "results"
PHOTO = Path(__file__).parents[1] / "zoo" / "images" / "dandelion.jpg"
ENGINES = {"constriction": constriction_ans, "C": c_ans, "plain Python": plain_ans}
BAR = 1.2
CASES_OF_TABLES = 500
ALL_EVERY = 20
CHANNELS, SIDE = 24, 55
ROUNDS, RUNS, PLAIN_RUNS = 15, 10, 1
STREAM_ID = b"case"


def random_rows(rng: np.random.Generator, number: int, most: int) -> FactorizedTables:
    """Draw rows of any precision and any offsets."""
    precision = int(rng.integers(2, 17))
    top = 1 << precision
    rows = []
    for _ in range(number):
        slots = int(rng.integers(2, min(top, most) + 1))
        cuts = rng.choice(top - 1, slots - 1, replace=False) + 1
        rows.append([0, *np.sort(cuts).tolist(), top])
    width = max(map(len, rows))
    near = rng.random() < 0.8
    offsets = rng.integers(-20, 5, number) if near else rng.integers(-(1 << 31), 1 << 30, number)
    cdf = np.array([row + [0] * (width - len(row)) for row in rows], np.int32)
    return FactorizedTables(cdf, np.array([len(row) for row in rows]), offsets, precision)


def random_context(rng: np.random.Generator, channels: int) -> SparseTables:
    """Draw tables of context coding, weights of all sizes among them."""
    passes = 1 + 3 * int(rng.integers(0, 4))
    spreads = np.unique(rng.integers(1, 900, rng.integers(0, 6)))
    fractions = np.unique(rng.integers(1, 256, rng.integers(0, 4)))
    most = 1 << int(rng.integers(4, 17))
    return SparseTables(
        weights=rng.integers(-most, most + 1, (passes, 4, 2, channels)),
        side=np.zeros(0, np.int32),
        side_weights=np.zeros((passes, channels), np.int32),
        spreads=spreads,
        fractions=fractions,
        limit=int(rng.integers(1, 256)),
        rows=random_rows(rng, (spreads.size + 1) * (fractions.size + 1), 30),
    )


def random_symbols(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw images (N, C, h, w) of symbols, most of them small, with some of up to 32 bits."""
    symbols = rng.integers(-20, 20, shape)
    far = rng.random(shape) < rng.choice([0, 0.02, 0.3], (len(symbols), 1, 1, 1))
    bits = rng.integers(1, 32, shape)
    return np.where(far, rng.integers(-(1 << bits), 1 << bits), symbols).astype(np.int32)


def check_case(codecs: dict[str, Codec], whole: CCoder, symbols: np.ndarray) -> int:
    """Code symbols as each codec and the C of whole streams do; return the stream's size in bytes.

    Raises:
        AssertionError: A stream, or what is read from it, differs.
    """
    stream = whole.encode(symbols)
    _, (found,) = whole.decode(stream, len(symbols))
    assert np.array_equal(found, symbols), "C reads other symbols"
    for name, codec in codecs.items():
        ans.BACKEND = ENGINES[name]
        assert codec.compress(symbols) == stream, f"{name} writes other bytes"
        if len(codecs) > 1:
            found = codec.decompress(stream)[0]
            assert np.array_equal(found, symbols), f"{name} reads other symbols"
    return len(stream)


def check_tables(seed: int, library: Path, *, context: bool) -> np.ndarray:
    """Check random cases under random tables; return the numbers of cases, symbols and bytes."""
    rng = np.random.default_rng((seed, context))
    channels, height, width = (int(size) for size in rng.integers(1, (4, 14, 14)))
    if context:
        tables, kind = random_context(rng, channels), ContextCoder
    else:
        tables, kind = random_rows(rng, channels, 40), FactorizedCoder
        height, width = min(height, 3), min(width, 4)
    codecs = {}
    for name, engine in ENGINES.items():
        ans.BACKEND = engine
        codecs[name] = Codec(kind(tables), STREAM_ID, (height, width))  # pyright: ignore
    whole, first_alone = CCoder(coder_file(codecs["C"]), library), dict([*codecs.items()][:1])
    images = random_symbols(rng, (CASES_OF_TABLES, channels, height, width))
    stream_bytes = sum(
        check_case(first_alone if number % ALL_EVERY else codecs, whole, symbols)
        for number, symbols in enumerate(images)
    )
    return np.array([len(images), images.size, stream_bytes])


def check_cases(cases: int, library: Path, processes: int, *, context: bool) -> dict[str, int]:
    """Check so many random cases, or fewer where Ctrl-C ends it early.

    The processes are forks, which know the library already.
    """
    seeds = range(-(-cases // CASES_OF_TABLES))
    check = functools.partial(check_tables, library=library, context=context)
    found = np.zeros(3, np.int64)
    ignore = signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with (
        multiprocessing.get_context("fork").Pool(processes, *ignore) as pool,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for counts in pool.imap_unordered(check, seeds):
            found += counts
            print(f"{found[0]:,} of {cases:,}", end="\r", flush=True)
    return dict(zip(("cases", "symbols", "stream_bytes"), found.tolist(), strict=True))


def static_latent() -> tuple[FactorizedTables, np.ndarray]:
    """Return tables and symbols of 24 channels of rising spread, two-sided geometric."""
    rng = np.random.default_rng(0)
    reach, rows, planes = 15, [], []
    for channel in range(CHANNELS):
        falling = np.exp(-np.abs(np.arange(-reach, reach + 1)) / (0.2 + 0.1 * channel))
        counts = np.maximum(np.floor(np.append(falling, 1e-4) / falling.sum() * 65_000), 1)
        counts[reach] += 65_536 - counts.sum()
        rows.append(np.concatenate([[0], np.cumsum(counts)]))
        planes.append(rng.choice(2 * reach + 2, SIDE * SIDE, p=counts / 65_536) - reach)
    cdf = np.array(rows, np.int32)
    lengths = np.full(CHANNELS, cdf.shape[1])
    tables = FactorizedTables(cdf, lengths, np.full(CHANNELS, -reach), 16)
    return tables, np.array(planes, np.int32).reshape(CHANNELS, SIDE, SIDE)


def timed(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return each task's time in milliseconds, the median of runs in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(ROUNDS):
        for name, task in tasks.items():
            task()
            for _ in range(PLAIN_RUNS if "plain" in name else RUNS):
                began = time.thread_time()
                task()
                seconds[name].append(time.thread_time() - began)
    return {name: float(np.median(runs)) * 1000 for name, runs in seconds.items()}


def measure(make: Callable[[], Codec], symbols: np.ndarray, library: Path) -> dict:
    """Time a codec under each engine, and the C of whole streams, on the same symbols."""
    encoding: dict[str, Callable[[], object]] = {}
    decoding: dict[str, Callable[[], object]] = {}
    stream = b""
    for name, engine in ENGINES.items():
        ans.BACKEND = engine
        codec = make()
        stream = codec.compress(symbols)

        def encode(codec=codec, engine=engine) -> object:
            ans.BACKEND = engine
            return codec.compress(symbols)

        def decode(codec=codec, engine=engine, stream=stream) -> object:
            ans.BACKEND = engine
            return codec.decompress(stream)

        encoding[name], decoding[name] = encode, decode
    whole = CCoder(coder_file(make()), library)
    assert whole.encode(symbols) == stream
    encoding["C alone"] = lambda: whole.encode(symbols)
    decoding["C alone"] = lambda: whole.decode(stream, len(symbols))
    return {
        "symbols": symbols.size,
        "stream_bytes": len(stream),
        "memory_bytes": whole.memory_bytes(symbols),
        "encode_ms": timed(encoding),
        "decode_ms": timed(decoding),
    }


def report(document: dict) -> str:
    """Write the page that people read."""
    facts, same = document["facts"], document["same"]
    lines = [
        "# The coder in C beside constriction",
        "",
        f"{facts['date']}, `{facts['command']}`, {facts['cpu']}, constriction "
        f"{facts['constriction']}, {facts['compiler']}.",
        "",
        "## The same bytes",
        "",
        "| random cases | symbols | bytes of streams | that differ |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, counts in same.items():
        lines.append(
            f"| {counts['cases']:,} of {name} | {counts['symbols']:,} | "
            f"{counts['stream_bytes']:,} | 0 |"
        )
    lines += [
        "",
        "Each written by constriction and by the C of whole streams, and read back by that; each "
        f"{ALL_EVERY}th written and read by plain Python and by the C that splitrun calls too.",
        "",
        "## Time",
        "",
        "| ms, one image | constriction | C | ratio | bar | met | C alone | plain Python |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for name, measured in document["speed"].items():
        for verb in ("encode", "decode"):
            found = measured[f"{verb}_ms"]
            ratio = found["C"] / found["constriction"]
            lines.append(
                f"| {name}, {verb} | {found['constriction']:.2f} | {found['C']:.2f} | {ratio:.2f} "
                f"| ≤ {BAR} | {'yes' if ratio <= BAR else 'no'} | {found['C alone']:.2f} | "
                f"{found['plain Python']:.1f} |"
            )
    sizes = "; ".join(
        f"{name}: {found['symbols']:,} symbols, {found['stream_bytes']:,} bytes, "
        f"{found['memory_bytes']:,} bytes of memory"
        for name, found in document["speed"].items()
    )
    lines += [
        "",
        f"{sizes} for C alone, beside the symbols and the stream. Payload and frame; time of the "
        f"processor, medians of {ROUNDS} rounds of {RUNS} runs in turns, one process.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--context-cases", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=cores())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "sz.so"
        compiler = c_library.compile_library(library)
        loaded = c_library.load(library)
        c_library.library = lambda: loaded
        same = {
            "static coding": check_cases(
                arguments.cases, library, arguments.processes, context=False
            ),
            "context coding": check_cases(
                arguments.context_cases, library, arguments.processes, context=True
            ),
        }
        model = zoo.load("flowers-splittable_regnetx_002-fp-beta3")
        (latent,) = model.wire_tensors(model.spec.preprocessing.load(PHOTO))
        tables, symbols = static_latent()
        speed = {
            "static": measure(
                lambda: Codec(FactorizedCoder(tables), STREAM_ID, (SIDE, SIDE)), symbols, library
            ),
            "context": measure(
                lambda: Codec(ContextCoder(model.codec.coder.tables), STREAM_ID, latent.shape[2:]),  # pyright: ignore
                np.ascontiguousarray(latent[0]),
                library,
            ),
        }
    facts = machine() | versions("constriction", "numpy")
    facts |= {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python -m benchmarks.c_coder --cases {arguments.cases} "
        f"--context-cases {arguments.context_cases}",
        "compiler": " ".join(compiler[:-3]),
    }
    document = {"facts": facts, "same": same, "speed": speed}
    for suffix, text in (
        (".json", json.dumps(document, indent=2) + "\n"),
        (".md", report(document)),
    ):
        with new_file(RESULTS / f"c_coder{suffix}", force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(report(document))


if __name__ == "__main__":
    main()
