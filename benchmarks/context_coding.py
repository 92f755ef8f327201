"""What calibrated tables and context coding save, and what they cost, on the flowers family.

    python benchmarks/context_coding.py --data flowers --runs runs

Tables are fitted to images of ``train/``; all that is measured is measured on ``val/``. Each
trained model sends the same symbols under its learned tables, under tables counted channel by
channel, and by context coding. Speed is measured beside CompressAI, on 24×55×55 symbols of trained
densities, in one process, in turns. A bar that is missed is reported; the exit code stays 0. With
``--only``, models that are not measured keep what the results say of them.
"""

import argparse
import functools
import json
import lzma
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from splitrun.coding import Coder, FactorizedCoder, FactorizedTables, save_coder
from splitrun.coding.factorized import ContextCoder
from splitrun.files import new_file
from splitrun.machine import machine
from splitzoo import zoo
from splitzoo.zoo.calibration.calibrate import codings, sent_tensors
from splitzoo.zoo.calibration.images import MOST_IMAGES, parted
from splitzoo.zoo.calibration.sparse import fit_sparse
from splitzoo.zoo.packaged import packaged
from splitzoo.zoo.split_model import SplitModel
from splitzoo.zoo.train.recipe_files import recipes

RESULTS = Path(__file__).parent / "results"
CHANNELS, SIDE = 24, 55
THREADS = 2
ROUNDS, RUNS = 5, 40
ENCODE = """
import re, sys
from pathlib import Path
import numpy as np
from splitrun.coding import load_coder

folder, kind = sys.argv[1:]
coder = load_coder(kind, {}, Path(folder) / f"{kind}.npz")
symbols = np.load(Path(folder) / "symbols.npy")
for _ in range(10):
    coder.encode(symbols)
# The largest size of this program alone: getrusage counts the one that started it too.
print(1024 * int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]))
"""
"""What a device does of entropy coding: it imports no torch."""

GENERAL_EVERY = 8
"""General-purpose compressors see one image of so many."""


def trained(runs: Path) -> dict[str, str]:
    """Return what loads each trained model with symbols, by name."""
    names = [
        name
        for stem, recipe in recipes().items()
        if stem.startswith("flowers") and stem != "flowers-teacher"
        for name in recipe.names()
    ]
    found = {}
    for name in names:
        run = runs / name / "model"
        if run.is_dir():
            found[name] = str(run)
        elif name in packaged():
            found[name] = name
    return found


def packed(symbols: np.ndarray) -> bytes:
    """Return symbols in as few whole bytes each as hold them all."""
    ends = (np.min_scalar_type(int(end)) for end in (symbols.min(), symbols.max()))
    return symbols.astype(np.promote_types(*ends)).tobytes()


def zstd(content: bytes) -> int:
    """Return the size that the program zstd makes of it."""
    done = subprocess.run(["zstd", "-19", "-c"], input=content, capture_output=True, check=True)
    return len(done.stdout)


GENERAL: dict[str, Callable[[bytes], int]] = {
    "xz": lambda content: len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
    **({"zstd": zstd} if shutil.which("zstd") else {}),
}


def measure_bytes(source: str, data: Path) -> dict:
    """Send the validation images' symbols under each coding."""
    model = zoo.load(source)
    model.calibration = None
    _ = model.codec
    # As `splitzoo zoo calibrate` fits them; that takes fewer for hyperpriors, to save memory.
    fitted, _ = parted(sent_tensors(model, data / "train", most=MOST_IMAGES))
    (_, learned), *others = codings(model, fitted).items()
    coders: dict[str, Coder] = {"learned": learned, **dict(others)}
    held_out = sent_tensors(model, data / "val", most=1 << 20)
    sizes = {
        name: np.array([len(coder.encode(*tensors)) for tensors in held_out])
        for name, coder in coders.items()
    }
    context = coders["context coding"]
    raw = learned.is_quantised
    alike, seconds = 0, []
    for tensors in held_out:
        hyper = functools.partial(_indexes, tensors[2:]) if learned.needs_hyper else None
        began = time.perf_counter()
        payload = context.encode(*tensors)
        between = time.perf_counter()
        decoded = context.decode(payload, *context.shape(*tensors), hyper)
        seconds.append((between - began, time.perf_counter() - between))
        alike += all(
            np.array_equal(a, b) for a, b in zip(decoded, tensors, strict=False)
        ) or torch.equal(_prediction(model, decoded), _prediction(model, tensors))
    ideal = np.array([context.ideal_bits(*tensors) / 8 for tensors in held_out])  # pyright: ignore[reportAttributeAccessIssue]
    # Scale, zero point and origins; a check of the indexes.
    head = 5 + context.channels if raw else 2 if learned.needs_hyper else 0
    over = sizes["context coding"] - head - ideal
    return {
        "model": model.spec.name,
        "kind": learned.kind,
        "fitted": len(fitted),
        "images": len(held_out),
        "symbols": int(np.prod(held_out[0][0].shape)),
        "payload_bytes": {name: float(size.mean()) for name, size in sizes.items()},
        "ratio": float(sizes["context coding"].mean() / sizes["learned"].mean()),
        "bar": 0.6 if raw else 0.75,
        "largest_growth_bytes": float((sizes["context coding"] - 1.02 * sizes["learned"]).max()),
        "above_ideal_bytes": float(over.mean()),
        "above_ideal_bar_met": bool(np.all(over <= 0.01 * ideal + 16)),
        "predictions_alike": alike,
        "milliseconds": (1000 * np.median(seconds, 0)).tolist(),
        "date": time.strftime("%Y-%m-%d"),
        "general": {
            name: float(
                np.mean([size(packed(tensors[0])) for tensors in held_out[::GENERAL_EVERY]])
            )
            for name, size in GENERAL.items()
        },
    }


@torch.no_grad()
def _prediction(model: SplitModel, received: tuple) -> torch.Tensor:
    """Return the logits of one image."""
    batch = (torch.from_numpy(np.ascontiguousarray(tensor))[None] for tensor in received)
    return model.decoder(model.bottleneck.from_wire(*batch))


def _indexes(indexes: tuple, _hyper_symbols: np.ndarray) -> tuple:
    """Stand for the hyper-decoder, which gave them when the symbols were made."""
    return indexes


def _met(fulfilled: bool) -> str:
    return "yes" if fulfilled else "no"


def _both(milliseconds: list[float] | None) -> str:
    return " / ".join(f"{time_ms:.1f}" for time_ms in milliseconds) if milliseconds else "–"


def big_example(source: str, data: Path) -> tuple[np.ndarray, torch.nn.Module]:
    """Make symbols of 24 channels, and CompressAI's model of their densities.

    The trained model has fewer channels: those of a second image fill the rest.
    """
    from compressai.entropy_models import EntropyBottleneck

    model = zoo.load(source)
    symbols = np.stack([tensors[0] for tensors in sent_tensors(model, data / "train", most=256)])
    own = symbols.shape[1]
    places = np.arange(CHANNELS) % own
    both = np.concatenate((symbols, np.roll(symbols, 1, 0)), 1)[:, :CHANNELS]
    theirs = EntropyBottleneck(CHANNELS)
    trained_one = model.bottleneck.get_submodule("entropy_bottleneck")
    state = theirs.state_dict()
    for name, value in trained_one.state_dict().items():
        if value.ndim and len(value) == own and name in state:
            state[name] = value[places]
    for name in ("_quantized_cdf", "_cdf_length", "_offset"):
        setattr(theirs, name, state[name])
    theirs.load_state_dict(state)
    theirs.eval().update(force=True)
    return both, theirs


def measure_speed(source: str, data: Path) -> dict:
    """Time context coding and CompressAI in turns on the same symbols."""
    torch.set_num_threads(THREADS)
    symbols, theirs = big_example(source, data)
    fitted, held_out = symbols[1:], symbols[0]
    ours = ContextCoder(fit_sparse(fitted, limit=15))
    medians = theirs.quantiles[:, 0, 1].detach().reshape(1, -1, 1, 1)  # pyright: ignore
    latent = torch.from_numpy(held_out)[None].float() + medians
    payload, strings = ours.encode(held_out), theirs.compress(latent)  # pyright: ignore
    assert np.array_equal(ours.decode(payload, SIDE, SIDE)[0], held_out)
    size = latent.shape[-2:]
    tasks: dict[str, Callable[[], object]] = {
        "encode": lambda: ours.encode(held_out),
        "compress": lambda: theirs.compress(latent),  # pyright: ignore
        "decode": lambda: ours.decode(payload, SIDE, SIDE),
        "decompress": lambda: theirs.decompress(strings, size),  # pyright: ignore
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(ROUNDS):
        for name, task in tasks.items():
            for _ in range(3):
                task()
            for _ in range(RUNS):
                began = time.perf_counter()
                task()
                seconds[name].append(time.perf_counter() - began)
    milliseconds = {name: float(np.median(runs) * 1000) for name, runs in seconds.items()}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_coder(ours, place / "context.npz")
        tables = FactorizedTables(
            theirs._quantized_cdf.numpy(),  # pyright: ignore
            theirs._cdf_length.numpy(),  # pyright: ignore
            theirs._offset.numpy(),  # pyright: ignore
            16,
        )
        save_coder(FactorizedCoder(tables), place / "factorized.npz")
        np.save(place / "symbols.npy", held_out)
        peak = {kind: _peak_of(place, kind) for kind in ("factorized", "context")}
        table_bytes = (place / "context.npz").stat().st_size
    return {
        "symbols": held_out.size,
        "payload_bytes": {"context coding": len(payload), "compressai": len(strings[0])},
        "milliseconds": milliseconds,
        "encode_ratio": milliseconds["encode"] / milliseconds["compress"],
        "decode_ratio": milliseconds["decode"] / milliseconds["decompress"],
        "peak_memory_growth_mb": (peak["context"] - peak["factorized"]) / 1e6,
        "tables_bytes": table_bytes,
    }


def _peak_of(folder: Path, kind: str) -> int:
    """Return the peak memory, in bytes, of a process that loads a coder and encodes."""
    words = [sys.executable, "-c", ENCODE, str(folder), kind]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout)


def report(models: list[dict], speed: dict, facts: dict) -> str:
    """Write the tables that people read."""
    lines = [
        "# Context coding beside learned tables",
        "",
        f"{facts['date']}, `{facts['command']}`, {facts['cpu']}, {facts['cores']} cores. Tables "
        f"fitted to {models[0]['fitted']} images of train/; everything measured on the "
        f"{models[0]['images']} of val/. Payload bytes, means; CR + BQ's learned coding is raw "
        "bytes."
        + (
            " Other rows are of earlier runs without `--only`."
            if "--only" in facts["command"]
            else ""
        ),
        "",
        "| model | learned | counted | context | ratio | bar | met | above ideal | "
        "largest growth − 2% | " + " | ".join(GENERAL) + " | predictions equal | ms | measured |",
        "| --- |" + " ---: |" * 4 + " --- | --- |" + " ---: |" * (4 + len(GENERAL)) + " --- |",
    ]
    for model in models:
        size = model["payload_bytes"]
        counted = size.get("counted tables")
        lines.append(
            f"| {model['model']} | {size['learned']:,.0f} | "
            f"{f'{counted:,.0f}' if counted else '–'} | {size['context coding']:,.0f} | "
            f"{model['ratio']:.3f} | ≤ {model['bar']} | "
            f"{_met(model['ratio'] <= model['bar'])} | "
            f"{model['above_ideal_bytes']:.1f} B | {model['largest_growth_bytes']:.0f} B | "
            + " | ".join(f"{model['general'][name]:,.0f}" for name in GENERAL)
            + f" | {model['predictions_alike']} | {_both(model.get('milliseconds'))} "
            + f"| {model['date']} |"
        )
    static = [model for model in models if "-fp-" in model["model"]]
    best = min(static, key=lambda model: model["ratio"]) if static else models[0]
    lines += [
        "",
        f"Best of the factorized models: {best['model']}, {best['ratio']:.3f} (bar ≤ 0.70: "
        f"{_met(best['ratio'] <= 0.7)}).",
    ]
    time_of = speed["milliseconds"]
    lines += [
        "",
        f"xz -9e and zstd -19 over the symbols of the latent in whole bytes, every "
        f"{GENERAL_EVERY}th image. Above ideal: payload less the sum of −log2 p of the tables, "
        "escaped bits included; bar 1% + 16 bytes of each image: "
        f"{'met by all' if all(model['above_ideal_bar_met'] for model in models) else 'missed'}. "
        "Growth: of the image that grows most, payload less 1.02 times the learned tables'; bar "
        "16 bytes. Predictions equal: images whose symbols all are, and so the predictions; of "
        "CR + BQ, all logits bit for bit. ms: to encode and decode an image, one thread, medians.",
        "",
        f"## Speed, {speed['symbols']:,} symbols, {THREADS} threads",
        "",
        "| | context coding | CompressAI | ratio | bar | met |",
        "| --- | ---: | ---: | ---: | --- | --- |",
        f"| encode / compress | {time_of['encode']:.2f} ms | {time_of['compress']:.2f} ms | "
        f"{speed['encode_ratio']:.2f} | ≤ 0.8 | {_met(speed['encode_ratio'] <= 0.8)} |",
        f"| decode / decompress | {time_of['decode']:.2f} ms | {time_of['decompress']:.2f} ms | "
        f"{speed['decode_ratio']:.2f} | ≤ 1.5 | {_met(speed['decode_ratio'] <= 1.5)} |",
        f"| payload | {speed['payload_bytes']['context coding']:,} B | "
        f"{speed['payload_bytes']['compressai']:,} B | | | |",
        "",
        f"Medians of {ROUNDS} rounds of {RUNS} runs, in turns, one process. The encoding process "
        f"grows by {speed['peak_memory_growth_mb']:.1f} MB over the static coder's (bar 20 MB); "
        f"tables of {speed['tables_bytes']:,} bytes.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds train/ and val/")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    sources = {
        name: source for name, source in trained(arguments.runs).items() if arguments.only in name
    }
    students = [name for name in sources if "-fp-" in name and not name.endswith("-e2e")]
    before = {"speed": {}, "models": []}
    if arguments.only:
        before = json.loads((RESULTS / "context_coding.json").read_text(encoding="utf-8"))
    speed = measure_speed(sources[students[0]], arguments.data) if students else before["speed"]
    print(json.dumps(speed, indent=2), flush=True)
    found = {model["model"]: model for model in before["models"]}
    for name, source in sources.items():
        found[name] = measure_bytes(source, arguments.data)
        print(f"{name:56} {found[name]['ratio']:.3f}", flush=True)
    models = list(found.values())
    facts = machine() | {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/context_coding.py --data {arguments.data} "
        f"--runs {arguments.runs}" + (f" --only {arguments.only}" if arguments.only else ""),
    }
    document = {"facts": facts, "speed": speed, "models": models}
    for suffix, text in (
        (".json", json.dumps(document, indent=2) + "\n"),
        (".md", report(models, speed, facts)),
    ):
        with new_file(RESULTS / f"context_coding{suffix}", force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(report(models, speed, facts))


if __name__ == "__main__":
    main()
