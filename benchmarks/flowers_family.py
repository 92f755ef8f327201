"""Evaluate the flowers family, and the codecs that it is compared with, on the validation images.

Every model goes through its real bitstream, image by image. Reports go to
``benchmarks/results/flowers/``, one per model; the figure and its points beside them. Finished
reports are kept, so an interrupted run goes on.

    python -m benchmarks.flowers_family --data flowers --runs runs

``--runs`` holds the folders that ``splitzoo zoo train NAME -o runs/NAME`` wrote. Models with a
density or 8-bit values are evaluated as they were trained and once more, calibrated to ``train/``
(``runs/NAME/calibrated``, made here where it is missing): ``NAME-calibrated.json``. What the
package carries is calibrated and needs no run.
"""

import argparse
import shlex
from pathlib import Path

from benchmarks.family import measure
from splitrun.errors import SplitzooError
from splitzoo import zoo
from splitzoo.zoo.packaged import packaged
from splitzoo.zoo.train.recipe_files import recipes

RESULTS = Path(__file__).parent / "results" / "flowers"
WHOLE = "flowers-regnetx_002"
QUALITIES = {
    "jpeg": (1, 5, 10, 20, 40, 80),
    "webp": (0, 5, 20, 50, 80),
    "avif": (0, 20, 40, 60),
}
FEATURE_QUALITIES = (20, 80)


def trained() -> list[str]:
    return [
        name
        for stem, recipe in recipes().items()
        if stem.startswith("flowers")
        for name in recipe.names()
    ]


def untrained() -> list[str]:
    coded = [f"{WHOLE}-{codec}-q{one}" for codec, every in QUALITIES.items() for one in every]
    return [*coded, *(f"{WHOLE}-s1-jpeg-q{one}" for one in FEATURE_QUALITIES)]


def sources(runs: Path, images: Path) -> dict[str, str]:
    """Return what loads each model, by the name of its report."""
    found = {}
    for name in trained():
        run = runs / name
        carried = name in packaged()
        if name == f"{WHOLE}-png":
            found[name] = name if carried else str(run / "model")
            continue
        found[name] = str(run / "model")
        found[f"{name}-calibrated"] = name if carried else str(calibrated(run, images))
    return found | {name: name for name in untrained()}


def calibrated(run: Path, images: Path) -> Path:
    """Return the folder of a run's calibrated model, made where it is missing."""
    folder = run / "calibrated"
    if (run / "model").is_dir() and not folder.is_dir():
        words = ["splitzoo", "zoo", "calibrate", str(run / "model"), "--data", str(images)]
        model = zoo.load(run / "model")
        zoo.calibrate(model, images, command=shlex.join([*words, "-o", str(folder)]))
        zoo.save(model, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds val/")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = arguments.data / "val"
    for name, source in sources(arguments.runs, arguments.data / "train").items():
        path = RESULTS / f"{name}.json"
        if path.exists() or arguments.only not in name:
            continue
        try:
            model = zoo.load(source)
        except SplitzooError as error:
            print(f"{name}: {error}")
            continue
        measure(model, source, folder, path, threads=arguments.threads)


if __name__ == "__main__":
    main()
