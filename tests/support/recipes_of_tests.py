"""Recipes for a network that trains in seconds: each method of the package, two epochs."""

import json

SIZES = {"encoder_channels": [8, 8, 4], "decoder_channels": [32, 32, 32]}
SMALL = {"resize": 64, "crop": [64, 64], "interpolation": "bilinear"}
WAYS = {"crop": "resized", "size": 64, "scale": [0.6, 1.0]}


def stage(*losses: dict, frozen: str = "", rate: float = 2e-3, **more) -> dict:
    return {
        "losses": list(losses),
        "epochs": 2,
        "batch_size": 6,
        "optimizer": {"kind": "adam", "learning_rate": rate},
        "schedule": {"kind": "cosine"},
        "augmentation": WAYS,
        "frozen": frozen,
        **more,
    }


def variant(name: str, like: str, **bottleneck) -> dict:
    return {"name": name, "like": like, "bottleneck": bottleneck, "preprocessing": SMALL}


FEATURES, TASK = {"kind": "features"}, {"kind": "task"}
RATE = {"kind": "rate"}
MEAN_RATE = {"kind": "rate", "reduction": "mean"}
DISTILLATION = {"kind": "distillation"}
FIRST = stage(FEATURES, RATE, frozen="decoder.tail", select="last")
SECOND = stage(DISTILLATION, frozen="encoder bottleneck")

TEACHER = {
    "about": "A whole network.",
    "models": [variant("made-teacher-png", "test_resnet-png")],
    "stages": [stage(TASK)],
}
METHODS = {
    "entropic-student-fp": ("splittable_test_resnet-fp-beta0.05", SIZES, [FIRST, SECOND]),
    "entropic-student-mshp": (
        "splittable_test_resnet-mshp-beta0.05",
        {**SIZES, "hyper_channels": 4},
        [FIRST, SECOND],
    ),
    "channel-reduction": (
        "splittable_test_resnet-bq3ch",
        {"width": 8},
        [stage(FEATURES, frozen="decoder.tail")],
    ),
    "end-to-end": ("splittable_test_resnet-fp-beta1e-5-e2e", SIZES, [stage(TASK, MEAN_RATE)]),
    "fine-tuning": (
        "test_resnet-eb_after_{layer}-beta1e-5",
        {},
        [stage(TASK, MEAN_RATE, rate=5e-4)],
    ),
}


def save(recipe: dict, path):
    """Write a recipe: JSON is YAML too, and without aliases."""
    path.write_text(json.dumps(recipe, indent=1))
    return path


def write_recipe(folder, method: str, teacher="") -> str:
    """Write the recipe of a method as a YAML file, and return its path."""
    if method == "teacher":
        recipe = TEACHER
    else:
        from splitzoo.zoo.backbones.table import find_backbone

        like, bottleneck, stages = METHODS[method]
        like = like.format(layer=find_backbone("test_resnet").stages[1].layer)
        recipe = {
            "about": f"The method {method}.",
            "models": [variant(f"made-{method}", like, **bottleneck)],
            "teacher": "" if method == "end-to-end" else str(teacher),
            "stages": stages,
        }
    path = folder / f"{method}.yaml"
    return str(save(recipe, path))
