"""Evaluate the ImageNet-1k students, and the codecs that they are compared with.

Every model goes through its real bitstream, image by image, and is compared with the whole network
on the same images. Reports go to ``benchmarks/results/imagenet/``, one per model. Finished reports
are kept, so an interrupted run goes on.

    python -m benchmarks.imagenet_family --data val --photographs photographs --runs runs

``--data`` holds labelled photographs, a folder per class, named by WordNet id; ``--photographs``
those that the entropy coding of the students is calibrated to, none of which is scored; ``--runs``
the folders that ``splitzoo zoo train imagenet-shallow_injection --model NAME -o runs/NAME`` wrote.
Students are evaluated as they were trained, stored in float16, and once more calibrated
(``runs/NAME/calibrated``, made here where it is missing): ``NAME-calibrated.json``. Those of
variable rate are evaluated at every level: ``NAME-calibrated.json`` is that of the level which is
taken where nobody chooses, ``NAME-at-β-calibrated.json`` that of another.
"""

import argparse
import shlex
from pathlib import Path

from benchmarks.family import measure
from splitrun.errors import SplitzooError
from splitzoo import zoo
from splitzoo.zoo.bottleneck_specs import VariableRateBottleneck
from splitzoo.zoo.split_model import SplitModel
from splitzoo.zoo.train.recipe_files import recipes

RESULTS = Path(__file__).parent / "results" / "imagenet"
TEACHER = "tf_efficientnet_lite0"
OTHERS = ("tf_efficientnet_lite2-png",)
QUALITIES = {
    "jpeg": (1, 3, 5, 8, 10, 15, 20, 30, 40, 60, 80),
    "webp": (0, 5, 10, 20, 40, 60, 80),
    "avif": (5, 10, 20, 30, 40, 50, 60),
}


def students() -> list[str]:
    """Return the names of the models that the recipes train."""
    found = [
        name
        for stem, recipe in recipes().items()
        if stem.startswith("imagenet")
        for name in recipe.names()
    ]
    return list(dict.fromkeys(found))


def baselines() -> list[str]:
    coded = [f"{TEACHER}-{codec}-q{one}" for codec, every in QUALITIES.items() for one in every]
    return [f"{TEACHER}-png", *OTHERS, *coded]


def stored(run: Path, photographs: Path) -> dict[str, Path]:
    """Return the folders of a run's model as it is stored: trained, and calibrated."""
    half, fitted = run / "half", run / "calibrated"
    if not half.is_dir():
        zoo.save(zoo.load(run / "model"), half, half="both")
    if not fitted.is_dir():
        model = zoo.load(half)
        words = ["splitzoo", "zoo", "calibrate", run.name, "--data", photographs.name]
        command = shlex.join([*words, "-o", f"{run.name}-calibrated"])
        zoo.calibrate(model, photographs, command=command)
        zoo.save(model, fitted, half="both")
    return {"": half, "-calibrated": fitted}


def levels(model: SplitModel) -> dict[str, SplitModel]:
    """Return a model at each of its levels of rate, by the words that its reports' names gain."""
    sizes = model.spec.bottleneck
    if not isinstance(sizes, VariableRateBottleneck):
        return {"": model}
    others = [beta for beta in sizes.betas if beta != sizes.beta]
    return {"": model, **{f"-at-{beta:g}": model.at(beta) for beta in others}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in [*baselines(), *students()]:
        if arguments.only not in name:
            continue
        run = arguments.runs / name
        if name in students() and not (run / "model").is_dir():
            print(f"{name}: no run in {run}")
            continue
        try:
            folders = stored(run, arguments.photographs) if name in students() else {"": name}
            for suffix, source in folders.items():
                for at, model in levels(zoo.load(source)).items():
                    path = RESULTS / f"{name}{at}{suffix}.json"
                    if not path.exists():
                        measure(
                            model,
                            name,
                            arguments.data,
                            path,
                            threads=arguments.threads,
                            against=f"{TEACHER}-png",
                        )
        except SplitzooError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main()
