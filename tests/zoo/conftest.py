"""What tests of training share: data, a teacher, and runs of each method."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folders of three classes: 48 images to train with, 12 to validate. Tests leave them be."""
    from made_data import make_folders

    return make_folders(tmp_path_factory.mktemp("data") / "made", train=16, val=4)


@pytest.fixture(scope="session")
def teacher(data, tmp_path_factory):
    """The folder of a whole network, trained on ``data``."""
    from recipes_of_tests import write_recipe
    from training_runs import plan_of

    from splitzoo.zoo.train.run import train

    folder = tmp_path_factory.mktemp("teacher")
    return train(plan_of(write_recipe(folder, "teacher"), data, folder / "run", seed=0))


@pytest.fixture(scope="session")
def trained_by(teacher, data, tmp_path_factory):
    """Train a model by a method, once for all tests: its recipe, and the folder of the run."""
    from recipes_of_tests import write_recipe
    from training_runs import plan_of

    from splitzoo.zoo.train.run import train

    done = {}

    def run(method: str) -> tuple[str, Path]:
        if method not in done:
            folder = tmp_path_factory.mktemp(method)
            done[method] = write_recipe(folder, method, teacher), folder / "run"
            train(plan_of(done[method][0], data, done[method][1]))
        return done[method]

    return run


@pytest.fixture
def changed_recipe(teacher, tmp_path):
    """Write the recipe of a method with some of its fields changed."""
    from recipes_of_tests import save, write_recipe

    def write(method: str = "entropic-student-fp", **changes) -> Path:
        recipe = json.loads(Path(write_recipe(tmp_path, method, teacher)).read_text())
        return save(recipe | changes, tmp_path / "changed.yaml")

    return write
