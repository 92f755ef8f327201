"""Time both halves of models on this machine, as a board would: ``splitrun bench`` of each bundle.

Reports go to ``benchmarks/results/latency/NAME.MACHINE.json``, one per model, as ``python -m
splitrun bench --json`` prints them; finished ones are kept. The image is the package's. Nothing
else should run meanwhile.

    python -m benchmarks.latency            # the carried models, and the codecs beside them
    python -m benchmarks.latency NAME...
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from splitrun.machine import machine, short_name
from splitzoo import export, zoo
from splitzoo.zoo.model_rows import package_rows
from splitzoo.zoo.packaged import packaged

RESULTS = Path(__file__).parent / "results"
LATENCY = RESULTS / "latency"
IMAGE = Path("zoo/images/dandelion.jpg")


def names() -> list[str]:
    """Return the carried models, and the whole networks, with codecs before them, of the tables."""
    whole = (row.model for row in package_rows() if row.method == "input-compression")
    return list(dict.fromkeys([*packaged(), *whole]))


def time_halves(name: str, path: Path) -> None:
    """Export a model for ONNX Runtime on a CPU, and keep what its bundle says of its latency."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        export.split(zoo.load(name), bundle, target="cpu")
        words = ["-m", "splitrun", "--bundle", str(bundle), "bench", "--json", "--image"]
        done = subprocess.run(
            [sys.executable, *words, str(IMAGE)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            check=True,
        )
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    for name in parser.parse_args().names or names():
        path = LATENCY / f"{name}.{short_name(machine())}.json"
        if not path.exists():
            time_halves(name, path)
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
