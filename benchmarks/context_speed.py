"""How fast context coding is beside that of an earlier commit, on the same symbols, in one run.

    python benchmarks/context_speed.py COMMIT --photos DIR [-o benchmarks/results]

The earlier ``splitrun`` is read from Git. Each side codes in processes of its own, which take
turns; both must write the same payloads. Times are of the processor, not of the clock: other
processes of the machine then disturb less.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from splitrun.coding import save_coder
from splitrun.files import new_file
from splitrun.image_files import list_images
from splitrun.machine import machine
from splitzoo import zoo

ROOT = Path(__file__).parents[1]
MODELS = (zoo.DEFAULT_MODEL, "flowers-splittable_regnetx_002-fp-beta3")
IMAGES, RUNS, ROUNDS = 8, 40, 5
SIDE = f"""
import hashlib, json, sys, time
from pathlib import Path
import numpy as np
from splitrun.coding import load_coder

folder = Path(sys.argv[1])
coder = load_coder("context", {{}}, folder / "tables.npz")
images = list(np.load(folder / "symbols.npy"))
payloads = [coder.encode(one) for one in images]
shape = images[0].shape[1:]
tasks = {{
    "encode": lambda: [coder.encode(one) for one in images],
    "decode": lambda: [coder.decode(one, *shape) for one in payloads],
}}
decoded = tasks["decode"]()
assert all(np.array_equal(a, b) for a, (b,) in zip(images, decoded))
found = {{"sha256": hashlib.sha256(b"".join(payloads)).hexdigest()}}
for name, task in tasks.items():
    task()
    found[name] = []
    for _ in range({RUNS}):
        began = time.process_time()
        task()
        found[name].append(1e3 * (time.process_time() - began) / len(images))
print(json.dumps(found))
"""
"""Milliseconds of an image, of each run over all images."""


def sent(name: str, photos: list[Path], folder: Path) -> None:
    """Write a model's coder, and its symbols (n, C, h, w) int32 of the images."""
    model = zoo.load(name)
    load = model.spec.preprocessing.load
    symbols = [model.wire_tensors(torch.from_numpy(load(photo)))[0] for photo in photos]
    np.save(folder / "symbols.npy", np.concatenate(symbols))
    save_coder(model.codec.coder, folder / "tables.npz")


def measure(name: str, photos: list[Path], places: dict[str, Path]) -> dict:
    """Let both sides code a model's symbols in turns."""
    with tempfile.TemporaryDirectory() as folder:
        sent(name, photos, Path(folder))
        turns: dict[str, list[dict]] = {side: [] for side in places}
        for number in range(ROUNDS):
            for side in list(places) if number % 2 else reversed(places):
                environment = os.environ | {"PYTHONPATH": str(places[side]), "OMP_NUM_THREADS": "1"}
                words = [sys.executable, "-c", SIDE, folder]
                done = subprocess.run(
                    words, env=environment, cwd=folder, capture_output=True, text=True, check=True
                )
                turns[side].append(json.loads(done.stdout))
    if len({turn["sha256"] for side in turns.values() for turn in side}) != 1:
        raise SystemExit(f"error: {name}: the payloads differ.")
    return {
        "model": name,
        "milliseconds": {
            side: {
                task: float(np.median([one[task] for one in of_side]))
                for task in ("encode", "decode")
            }
            for side, of_side in turns.items()
        },
    }


def page(found: list[dict], commit: str) -> str:
    """Return what people read."""
    cpu = machine()
    lines = [
        f"# Context coding beside that of {commit}",
        "",
        f"{time.strftime('%Y-%m-%d')}, `python benchmarks/context_speed.py {commit} --photos DIR`, "
        f"{cpu['cpu']} ({cpu['instructions']}), {cpu['cores']} cores, numpy {np.__version__}. "
        f"The symbols of {IMAGES} images; milliseconds of one thread for an image, medians of "
        f"{ROUNDS * RUNS} runs in {ROUNDS} processes of each side, in turns. Both write the same "
        "bytes.",
        "",
        "| model | task | before | now | ratio |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for one in found:
        before, now = (one["milliseconds"][side] for side in ("before", "now"))
        both = {"encode": ("encode",), "decode": ("decode",), "both": ("encode", "decode")}
        for task, parts in both.items():
            old, new = (sum(side[part] for part in parts) for side in (before, now))
            lines.append(f"| {one['model']} | {task} | {old:.2f} | {new:.2f} | {new / old:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--photos", type=Path, required=True, help=f"the first {IMAGES} are coded")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks/results")
    arguments = parser.parse_args()
    photos = list_images(arguments.photos)[:IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        words = ["git", "archive", arguments.commit, "splitrun"]
        archive = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            opened.extractall(folder, filter="data")
        # Python puts a folder of PYTHONPATH before installed packages.
        places = {"before": Path(folder), "now": ROOT}
        found = [measure(name, photos, places) for name in MODELS]
    with new_file(arguments.output / "context_speed.md", force=True) as temporary:
        temporary.write_text(page(found, arguments.commit), encoding="utf-8")
    print(page(found, arguments.commit))


if __name__ == "__main__":
    main()
