"""Evaluate the flowers family, and the codecs that it is compared with, on the validation pictures.

Every model goes through its real bitstream, picture by picture. Reports go to
``benchmarks/results/flowers/``, one per model; the figure and its points beside them. Finished
reports are kept, so an interrupted run goes on.

    python benchmarks/flowers_family.py --data flowers --runs runs

``--runs`` holds the folders that ``splitzoo zoo train NAME -o runs/NAME`` wrote; models that the
package carries need none.
"""

import argparse
import shlex
import time
from pathlib import Path

from splitzoo import zoo
from splitzoo.errors import SplitzooError
from splitzoo.profile.accuracy import ModelSubject, evaluate
from splitzoo.zoo.datasets import read_dataset
from splitzoo.zoo.labels import labels_of
from splitzoo.zoo.packaged import packaged
from splitzoo.zoo.train.recipe import recipes

RESULTS = Path(__file__).parent / "results" / "flowers"
WHOLE = "flowers-regnetx_002"
QUALITIES = {
    "jpeg": (1, 5, 10, 20, 40, 80),
    "webp": (0, 5, 20, 50, 80),
    "avif": (0, 20, 40, 60),
}
FEATURE_QUALITIES = (20, 80)


def names() -> list[str]:
    trained = [
        name
        for stem, recipe in recipes().items()
        if stem.startswith("flowers")
        for name in recipe.names()
    ]
    coded = [f"{WHOLE}-{codec}-q{one}" for codec, every in QUALITIES.items() for one in every]
    return [*trained, *coded, *(f"{WHOLE}-s1-jpeg-q{one}" for one in FEATURE_QUALITIES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds val/")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = arguments.data / "val"
    for name in names():
        path = RESULTS / f"{name}.json"
        if path.exists() or arguments.only not in name:
            continue
        run = arguments.runs / name / "model"
        source = name if name in packaged() or not run.is_dir() else str(run)
        try:
            model = zoo.load(source)
        except SplitzooError as error:
            print(f"{name}: {error}")
            continue
        began = time.monotonic()
        dataset = read_dataset(model.spec.task, folder, "val", labels_of(model.spec))
        words = ["splitzoo", "profile", "accuracy", source, "--data", str(folder)]
        keep = path.with_suffix(".partial")
        report, _ = evaluate(
            ModelSubject(model),
            dataset,
            folder,
            threads=arguments.threads,
            keep=keep,
            command=shlex.join([*words, "-o", f"{name}.json"]),
        )
        report.save(path)
        keep.unlink()
        print(
            f"{name:56} {report.score:7.2%} {report.stream_bytes.mean:9,.0f} bytes "
            f"{report.encoder.encoder_bits:12,} bits {time.monotonic() - began:5.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
