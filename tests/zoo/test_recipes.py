"""The recipes of this package, those of sc2-benchmark among them; what a file may hold."""

import fnmatch
import json
import re

import pytest
import yaml

from splitrun.errors import RecipeError, UnknownNameError
from splitzoo import zoo
from splitzoo.zoo.models import MODELS
from splitzoo.zoo.train.recipe import find_recipe, read_recipe, recipes, stages_of

OF_THE_PAPER = {
    name: recipe for name, recipe in recipes().items() if not name.startswith("flowers")
}


def test_a_model_has_one_recipe_and_teachers_and_starts_are_models():
    names = [name for recipe in recipes().values() for name in recipe.names()]
    assert len(names) == len(set(names))
    for recipe in OF_THE_PAPER.values():
        assert set(MODELS.names()) >= set(recipe.names())
        if recipe.teacher:
            assert zoo.get_spec(recipe.teacher).cut is None
        for name in recipe.names():
            spec = recipe.spec(name)
            if recipe.start:
                source = zoo.get_spec(recipe.start.source(name))
                assert source.task == "image-classification"
                assert source.beta == spec.beta
                assert source.bottleneck == spec.bottleneck


# Training, from the same configurations: epochs, batch (0 where it depends on the command line),
# optimiser, learning rate, epochs after which it falls, and what is frozen.
E2E_ON_IMAGES = [(60, 256, "Adam", 1e-3, (), False)]
TWO_STAGES = [(10, 64, "Adam", 1e-3, (5, 8), None), (10, 128, "SGD", 1e-3, (5,), True)]
LONGER = [TWO_STAGES[0], (20, 128, "SGD", 1e-3, (10,), True)]
FOR_BOXES = [(5, 0, "Adam", 1e-3, (3,), True), (5, 0, "SGD", 1e-4, (3,), True)]
FOR_PIXELS = [(40, 16, "Adam", 1e-3, (30, 35), True), (10, 16, "SGD", 2.5e-3, (), True)]
TRAINING = {
    "splittable_resnet50-*fp-beta*[0-9]": TWO_STAGES,
    "splittable_resnet101-*": TWO_STAGES,
    "splittable_regnety6.4gf-*": TWO_STAGES,
    "splittable_hybrid_vit_*-beta[0-5].??": TWO_STAGES,
    "splittable_hybrid_vit_*-beta1?.??": LONGER,
    "splittable_hybrid_vit_*-beta20.48": LONGER,
    "faster_rcnn_splittable_resnet50-fp-beta?.??": FOR_BOXES,
    "deeplabv3_splittable_resnet50-fp-beta?.??": FOR_PIXELS,
    "splittable_resnet50-fp-beta*-e2e": E2E_ON_IMAGES,
    "faster_rcnn_*-e2e": [(10, 0, "SGD", 1e-4, (5,), True)],
    "deeplabv3_*-e2e": [(50, 8, "SGD", 2.5e-3, (), True)],
    "resnet50-eb_after_layer[12]-*": [(10, 128, "Adam", 1e-3, (5, 8), False)],
    "resnet50-eb_after_layer[34]-*": [(10, 256, "Adam", 1e-3, (5, 8), False)],
    "resnet50-eb_after_avgpool-*": [(10, 256, "Adam", 1e-3, (5, 8), False)],
    "splittable_resnet50-bq?*ch": [(20, 64, "Adam", 1e-3, (5, 10, 15), None)],
    "faster_rcnn_splittable_resnet50-bq*": [(20, 0, "Adam", 1e-3, (5, 15), None)],
    "deeplabv3_splittable_resnet50-bq*": [(50, 16, "Adam", 1e-3, (30, 40), None)],
}


@pytest.mark.parametrize("pattern", TRAINING)
def test_the_training_recipe_is_that_of_the_configurations(pattern):
    specs = [MODELS.get(name) for name in fnmatch.filter(zoo.list_models(), pattern)]
    published = [spec for spec in specs if spec.reference]
    assert published
    for spec in published:
        stages = stages_of(spec.name)
        assert len(stages) == len(TRAINING[pattern])
        for stage, expected in zip(stages, TRAINING[pattern], strict=True):
            epochs, batch, optimizer, rate, milestones, encoder_is_frozen = expected
            assert (stage.epochs, stage.optimizer.learning_rate) == (epochs, rate)
            assert stage.schedule.milestones == milestones
            assert stage.optimizer.kind == optimizer.lower()
            assert batch in (0, stage.batch_size)
            if encoder_is_frozen is not None:
                assert (stage.frozen[:2] == ("encoder", "bottleneck")) == encoder_is_frozen


def test_what_is_not_trained_has_no_recipe():
    for method in ("input-compression", "feature-compression"):
        for name in zoo.list_models(method=method):
            if not name.startswith("flowers"):
                assert stages_of(name) == ()
                assert zoo.get_spec(name).base_model.startswith("timm/")


LOSSES = {
    # Losses and their reductions, as the configurations have them.
    "splittable_resnet50-fp-beta0.16": [
        [("features", "sum"), ("rate", "sum")],
        [("distillation",)],
    ],
    "splittable_resnet50-fp-beta1.28e-8-e2e": [[("task",), ("rate", "mean")]],
    "resnet50-eb_after_layer3-beta1.0e-5": [[("task",), ("rate", "mean")]],
    "splittable_resnet50-bq3ch": [[("features", "sum")]],
    "deeplabv3_splittable_resnet50-fp-beta0.16": [[("features", "sum")], [("task",)]],
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_stage_lowers(name):
    fields = ("kind", "reduction")
    assert LOSSES[name] == [
        [tuple(getattr(loss, field) for field in fields if hasattr(loss, field)) for loss in losses]
        for losses in (stage.losses for stage in stages_of(name))
    ]


def test_dense_features_are_those_of_the_configurations():
    assert stages_of("deeplabv3_splittable_resnet50-bq3ch")[0].losses[0].layers == (
        *("layer2", "layer3", "layer4"),
    )
    assert stages_of("faster_rcnn_splittable_resnet50-bq3ch")[0].losses[0].layers == ()
    auxiliary = stages_of("deeplabv3_splittable_resnet50-fp-beta0.16")[1]
    assert auxiliary.optimizer.rates == {"decoder.tail.aux_classifier": 0.025}
    assert auxiliary.losses[0].auxiliary == 0.5


GOOD = {
    "about": "One model.",
    "models": [{"name": "mine", "like": "splittable_test_resnet-fp-beta0.1"}],
    "stages": [
        {
            "losses": [{"kind": "task"}],
            "epochs": 1,
            "batch_size": 2,
            "optimizer": {"kind": "adam", "learning_rate": 0.1},
        }
    ],
}


def changed(**changes):
    return {**GOOD, **changes}


def stage(**changes):
    return changed(stages=[{**GOOD["stages"][0], **changes}])


LION = {"kind": "lion", "learning_rate": 1}
BAD = [
    (stage(epochs=0), "stages.0.epochs"),
    (stage(losses=[]), "stages.0.losses"),
    (stage(optimizer=LION), "stages.0.optimizer.kind"),
    (stage(frozen="encoder; rm"), "stages.0.frozen"),
    (changed(surprise=1), "surprise"),
    (stage(losses=[{"kind": "distillation"}]), "a loss compares with a teacher"),
    (changed(models=[]), "models"),
    ([1, 2], "the document"),
    ("a: [1", "is not YAML"),
    ("a: &x [1]\nb: *x\n", "aliases"),
    ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ("ÿ" * (1 << 20), "larger than 1 MiB"),
]


@pytest.mark.parametrize(("recipe", "said"), BAD, ids=[said for _, said in BAD])
def test_a_file_that_is_no_recipe_is_refused(recipe, said, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe), encoding="utf-8")
    with pytest.raises(RecipeError, match=re.escape(said)) as error:
        read_recipe(path)
    assert str(path) in str(error.value)


def test_a_variant_is_like_another_but_for_what_it_says(tmp_path):
    path = tmp_path / "mine.yaml"
    variant = GOOD["models"][0] | {"beta": 2.5, "preprocessing": {"resize": 64, "crop": [64, 64]}}
    path.write_text(json.dumps(changed(models=[variant])))
    name, _, spec = find_recipe(str(path))
    assert (name, spec.name, spec.beta, spec.preprocessing.crop) == ("mine", "mine", 2.5, (64, 64))
    assert spec.cut == zoo.get_spec("splittable_test_resnet-fp").cut
    variant["bottleneck"] = {"encoder_channels": [0, 1, 1]}
    path.write_text(json.dumps(changed(models=[variant])))
    with pytest.raises(RecipeError, match="mine cannot be like splittable_test_resnet"):
        find_recipe(str(path))
    variants = [variant | {"name": name, "bottleneck": {}} for name in ("one", "two")]
    path.write_text(json.dumps(changed(models=variants)))
    with pytest.raises(RecipeError, match="for 2 models") as error:
        find_recipe(str(path))
    assert "--model: one, two" in str(error.value)
    assert find_recipe(str(path), "two")[2].name == "two"
    with pytest.raises(UnknownNameError, match="model of this recipe"):
        find_recipe(str(path), "three")


def test_recipes_are_listed_and_printed(splitzoo, tmp_path):
    code, out, err = splitzoo("zoo", "recipe")
    assert code == 0
    assert "entropic_student-resnet50" in out
    assert "splitzoo zoo recipe RECIPE" in err
    listed = json.loads(splitzoo("zoo", "recipe", "--json")[1])
    assert listed == {stem: recipe.names() for stem, recipe in recipes().items()}
    code, out, _ = splitzoo("zoo", "recipe", "splittable_resnet50-fp-beta0.16")
    assert code == 0
    # What is printed is a recipe: a file to begin one's own with.
    path = tmp_path / "mine.yaml"
    path.write_text(out)
    assert read_recipe(path) == recipes()["entropic_student-resnet50"]
    assert yaml.safe_load(out)["teacher"] == "resnet50-png"
    code, out, err = splitzoo("zoo", "recipe", "entropic_student-resnet5")
    assert (code, out) == (1, "")
    assert "entropic_student-resnet50" in err
