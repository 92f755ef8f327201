"""Evaluate the detectors of blood cells, and the codecs that they are compared with.

Every model goes through its real bitstream, image by image, on the data set's 72 validation images.
Reports go to ``benchmarks/results/bccd/reports/``, one per model. Finished ones are kept, so an
interrupted run goes on.

    python -m benchmarks.bccd_family --data bccd --runs runs

``--data`` is in COCO's layout; ``--runs`` holds the folders that ``splitzoo zoo train`` wrote, by
the names of the models of the recipes ``bccd-teacher`` and ``bccd-shallow_injection-variable``.
Codecs stand in front of the first of them. The second is stored in float16, its entropy coding
calibrated to the training images, and evaluated at every level of rate.
"""

import argparse
from pathlib import Path

from benchmarks.family import measure
from benchmarks.imagenet_family import levels, stored
from splitzoo import zoo
from splitzoo.zoo.packaged import recoded
from splitzoo.zoo.pretrained import recode
from splitzoo.zoo.train.recipe_files import recipes

RESULTS = Path(__file__).parent / "results" / "bccd" / "reports"
QUALITIES = {
    "jpeg": (2, 5, 10, 20, 40, 75, 90),
    "webp": (0, 10, 30, 60),
    "avif": (5, 15, 30, 50),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (teacher,) = recipes()["bccd-teacher"].names()
    (student,) = recipes()["bccd-shallow_injection-variable"].names()
    whole = zoo.load(arguments.runs / teacher / "model")
    models = {teacher: whole}
    for codec, qualities in QUALITIES.items():
        for quality in qualities:
            spec = recoded(whole.spec, codec, quality)
            models[spec.name] = recode(whole, zoo.build(spec))
    run = arguments.runs / student
    if (run / "model").is_dir():
        fitted = stored(run, arguments.data / "train2017")["-calibrated"]
        for at, model in levels(zoo.load(fitted)).items():
            models[f"{student}{at}-calibrated"] = model
    for name, model in models.items():
        path = RESULTS / f"{name}.json"
        if arguments.only in name and not path.exists():
            source = student if name.startswith(student) else name
            measure(model, source, arguments.data, path, threads=arguments.threads)


if __name__ == "__main__":
    main()
