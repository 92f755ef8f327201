"""What cannot be trained is refused: commands, recipes and data that do not fit."""

from pathlib import Path

import pytest
from recipes_of_tests import DISTILLATION, FIRST, TASK, stage, variant, write_recipe
from training_runs import plan_of

from splitrun.errors import DatasetError, RecipeError, SpecError, TrainingError
from splitzoo.zoo.datasets import read_dataset
from splitzoo.zoo.train.recipe_files import find_recipe
from splitzoo.zoo.train.run import train


def test_what_cannot_be_trained_is_said_before_it_begins(
    teacher, tiny_folder, data, tmp_path, splitzoo
):
    recipe = write_recipe(tmp_path, "entropic-student-fp", teacher)
    run, missing, empty = (tmp_path / name for name in ("run", "missing", "empty"))
    empty.mkdir()

    def refused(said: str, recipe: str | Path, data: Path, *words) -> None:
        code, out, err = splitzoo("zoo", "train", recipe, "--data", data, "-o", run, *words)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        assert said in err
        assert not run.exists()

    refused("is not a folder", recipe, missing)
    refused("has no folder train", recipe, empty)
    refused("Cannot read", missing / "a.yaml", data)
    refused("No recipe is named", "splitable_resnet50", data)
    refused("made of published parts", "resnet50-jpeg-q90", data)
    refused("3 numbers of epochs for 2 stages", recipe, data, *("--epochs", 1) * 3)
    unknown = "has classes that the model does not know: bars"
    refused(unknown, "splittable_resnet50-fp-beta0.16", data)
    refused("cannot teach: it is cut", recipe, data, "--teacher", tiny_folder)
    (empty / "train" / "a").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no images"):
        read_dataset("image-classification", empty, "train")


UNLABELLED = {
    "unlabelled images have no classes for the task's loss": {"stages": [stage(TASK)]},
    "unlabelled images have no classes for distillation": {"stages": [stage(DISTILLATION)]},
    "need a teacher, and a share that is held_out": {"stages": [FIRST], "held_out": 0.0},
}


@pytest.mark.parametrize("said", UNLABELLED)
def test_a_recipe_that_needs_classes_is_refused_without_them(said, changed_recipe, tmp_path):
    recipe = changed_recipe(**{"dataset": "unlabelled", "held_out": 0.25} | UNLABELLED[said])
    with pytest.raises(RecipeError, match=said):
        find_recipe(str(recipe))


OWN_RATE = {"kind": "adam", "learning_rate": 1, "rates": {"decoder.other": 1}}
ANOTHER = {
    "name": "another",
    "like": "splittable_test_efficientnet-fp-beta0.1",
    "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3},
}
UNROUNDED = {
    "models": [variant("made-reduced", "splittable_test_resnet-bq3ch", width=8)],
    "stages": [stage(TASK, rounded=True)],
}
WRONG = {
    "no such features": {"stages": [stage({"kind": "features", "layers": ["layer9"]})]},
    "is to be frozen": {"stages": [stage(TASK, frozen="encoder.nothing")]},
    "nothing to train": {"stages": [stage(TASK, frozen="encoder bottleneck decoder")]},
    "no part that this stage trains": {"stages": [stage(TASK, optimizer=OWN_RATE)]},
    "is trained on image-folder, not on voc": {"dataset": "voc"},
    r"tensors are missing there\s+or of another shape": {"models": [ANOTHER]},
    "cannot train with rounded latents": UNROUNDED,
    "no longer a number": {"stages": [stage(TASK, rate=1e30)]},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_recipe_that_cannot_be_followed_is_refused(said, changed_recipe, data, tmp_path):
    plan = plan_of(changed_recipe(**WRONG[said]), data, tmp_path / "run")
    with pytest.raises((RecipeError, SpecError, TrainingError), match=said):
        train(plan)
