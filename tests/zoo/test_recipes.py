"""The recipes of this package, those of sc2-benchmark among them; what a file may hold."""

import fnmatch
import json
import re
from pathlib import Path

import pytest
import yaml

from splitrun.errors import RecipeError, UnknownNameError
from splitzoo import zoo
from splitzoo.zoo.models import MODELS
from splitzoo.zoo.train.recipe import Schedule
from splitzoo.zoo.train.recipe_files import find_recipe, read_recipe, recipes, stages_of
from splitzoo.zoo.train.student import load_teacher

ROOT = Path(__file__).parents[2]
OF_THE_PAPER = {
    name: recipe
    for name, recipe in recipes().items()
    if not name.startswith(("bccd", "flowers", "imagenet"))
}


def test_a_model_has_one_recipe_and_teachers_and_starts_are_models():
    names = [name for recipe in recipes().values() for name in recipe.names()]
    assert len(names) == len(set(names))
    for recipe in OF_THE_PAPER.values():
        assert set(zoo.list_models()) >= set(recipe.names())
        if recipe.teacher:
            assert zoo.get_spec(recipe.teacher).cut is None
        for name in recipe.names():
            spec = recipe.spec(name)
            if recipe.start:
                source = zoo.get_spec(recipe.start.source(name))
                assert source.task == "image-classification"
                assert source.beta == spec.beta
                assert source.bottleneck == spec.bottleneck


def test_the_detectors_of_blood_cells_share_their_heads_and_keep_the_students_encoder():
    teacher, student = recipes()["bccd-teacher"], recipes()["bccd-shallow_injection-variable"]
    assert teacher.names() == [student.teacher]
    whole, split = teacher.spec(), student.spec()
    assert (whole.cut, split.cut, whole.dataset, split.dataset) == (None, "blocks.2", "", "")
    assert whole.preprocessing.crop == split.preprocessing.crop
    assert student.start is not None
    source = zoo.get_spec(student.start.source(split.name))
    assert source.bottleneck == split.bottleneck
    first, *later = (stage.frozen for stage in student.stages)
    assert (first, set(later)) == (("encoder", "bottleneck"), {("encoder",)})


def test_a_teacher_that_does_not_come_with_the_package_is_to_be_trained_first():
    with pytest.raises(RecipeError, match="does not come with the package") as refused:
        load_teacher(recipes()["bccd-shallow_injection-variable"])
    assert "splitzoo zoo train bccd-teacher" in refused.value.next_step


# Stages as the configurations of sc2-benchmark have them, and as the text of the paper has them:
# epochs, batch, optimiser, learning rate, epochs after which it falls, what is compared, what is
# frozen of encoder and tail. A batch "2 x 128" is accumulated over two. None: it is not said.
FOUR, THREE, KD = "features", "features layer2 layer3 layer4", "distillation 0.5 1"
ENCODER, TAIL = "encoder bottleneck", "decoder.tail"
LATE = "decoder.tail.body.layer3 decoder.tail.body.layer4"
FIRST = (10, "64", "adam", 1e-3, (5, 8), f"{FOUR} rate", TAIL)
SECOND = (10, "128", "sgd 0.9 5e-4", 1e-3, (5,), KD, ENCODER)
SEGMENTED = (40, "16", "adam", 1e-3, (30, 35), THREE, f"{ENCODER} {LATE}")
POLYNOMIAL = "sgd 0.9 1e-4 polynomial"
REPOSITORY = {
    "splittable_resnet50-*fp-beta*[0-9]": [FIRST, SECOND],
    "splittable_resnet50-mshp-*": [FIRST, SECOND],
    "splittable_resnet101-*": [FIRST, SECOND],
    "splittable_regnety6.4gf-*": [FIRST, SECOND],
    "splittable_hybrid_vit_*-beta[0-5].??": [FIRST, SECOND],
    "splittable_hybrid_vit_*-beta1?.??": [FIRST, (20, *SECOND[1:4], (10,), *SECOND[5:])],
    "splittable_hybrid_vit_*-beta20.48": [FIRST, (20, *SECOND[1:4], (10,), *SECOND[5:])],
    "faster_rcnn_splittable_resnet50-fp-beta?.??": [
        (5, None, "adam", 1e-3, (3,), FOUR, ENCODER),
        (5, None, "sgd 0.9 5e-4", 1e-4, (3,), "task", ENCODER),
    ],
    "deeplabv3_splittable_resnet50-fp-beta?.??": [
        SEGMENTED,
        (10, "16", POLYNOMIAL, 2.5e-3, (), "task", ENCODER),
    ],
    "splittable_resnet50-fp-beta*-e2e": [
        (60, "256", "adam 0 1e-4 cosine", 1e-3, (), "task rate", ""),
    ],
    "faster_rcnn_*-e2e": [(10, None, "sgd 0.9 5e-4", 1e-4, (5,), "task", ENCODER)],
    "deeplabv3_*-e2e": [(50, "8", POLYNOMIAL, 2.5e-3, (), "task", ENCODER)],
    "resnet50-eb_after_layer[12]-*": [(10, "2 x 128", "adam", 1e-3, (5, 8), "task rate", "")],
    "resnet50-eb_after_layer[34]-*": [(10, "2 x 256", "adam", 1e-3, (5, 8), "task rate", "")],
    "resnet50-eb_after_avgpool-*": [(10, "256", "adam", 1e-3, (5, 8), "task rate", "")],
    "splittable_resnet50-bq?*ch": [(20, "64", "adam", 1e-3, (5, 10, 15), FOUR, TAIL)],
    "faster_rcnn_splittable_resnet50-bq*": [(20, None, "adam", 1e-3, (5, 15), FOUR, "")],
    "deeplabv3_splittable_resnet50-bq*": [(50, "16", "adam", 1e-3, (30, 40), THREE, LATE)],
}
PAPER = {
    # Appendix C.2: "the last three residual blocks"; "2 and 8 for object detection and semantic
    # segmentation"; "reduced by a factor of 10 at the end of the 5th and 15th epochs".
    "splittable_resnet50-bq?*ch": [(20, "32", "adam", 1e-3, (5, 10, 15), THREE, None)],
    "faster_rcnn_splittable_resnet50-bq*": [(20, "2", "adam", 1e-3, (5, 15), THREE, None)],
    "deeplabv3_splittable_resnet50-bq*": [(20, "8", "adam", 1e-3, (5, 15), THREE, None)],
    # Appendix D.1.
    "splittable_resnet50-fp-beta*[0-9]": [
        (10, "64", "adam", 1e-3, (5, 8), None, None),
        (None, "128", "sgd 0.9 5e-4", 1e-3, (5,), KD, ENCODER),
    ],
    "faster_rcnn_splittable_resnet50-fp-beta?.??": [
        (3, "6", "adam", 1e-3, (2,), None, ENCODER),
        (2, "6", "sgd 0.9 5e-4", 1e-3, (1,), "task", ENCODER),
    ],
    "deeplabv3_splittable_resnet50-fp-beta?.??": [
        (40, "16", "adam", 1e-3, (30, 35), None, None),
        (5, None, POLYNOMIAL, 2.5e-3, (), "task", ENCODER),
    ],
    # Appendix D.2: "the hyperparameters are the same as above, but the number of epochs … is 5".
    "splittable_resnet50-fp-beta*-e2e": [
        (60, "256", "adam 0 1e-4 cosine", 1e-3, (), "task rate", ""),
    ],
    "faster_rcnn_*-e2e": [(5, "6", "sgd 0.9 5e-4", 1e-3, (1,), "task", ENCODER)],
    "deeplabv3_*-e2e": [(50, "8", POLYNOMIAL, 2.5e-3, (), "task", None)],
}
ALL = [("repository", name) for name in REPOSITORY] + [("paper", name) for name in PAPER]


def told(stage) -> tuple:
    """A stage in the words of the tables."""
    terms = []
    for loss in stage.losses:
        words = [loss.kind, *getattr(loss, "layers", ())]
        if loss.kind == "distillation":
            words += [f"{loss.alpha:g}", f"{loss.temperature:g}"]
        terms += words
    optimizer, schedule = stage.optimizer, stage.schedule
    decay = f"{optimizer.weight_decay:.0e}".replace("e-0", "e-")
    words = [optimizer.kind]
    words += [f"{optimizer.momentum:g}", decay] * bool(optimizer.weight_decay)
    words += [schedule.kind] * (schedule.kind != "steps")
    batch = str(stage.batch_size)
    if stage.parts > 1:
        batch = f"{stage.parts} x {stage.batch_size // stage.parts}"
    return (
        *(stage.epochs, batch, " ".join(words), optimizer.learning_rate, schedule.milestones),
        *(" ".join(terms), " ".join(stage.frozen)),
    )


@pytest.mark.parametrize(("source", "pattern"), ALL)
def test_a_recipe_has_the_values_of_the_source_that_it_names(source, pattern):
    table = REPOSITORY if source == "repository" else PAPER
    specs = [MODELS.get(name) for name in fnmatch.filter(zoo.list_models(), pattern)]
    published = [spec.name for spec in specs if spec.reference]
    assert published
    for name in published:
        stages = find_recipe(name)[1].of_source(source).stages
        assert len(stages) == len(table[pattern])
        for stage, expected in zip(stages, table[pattern], strict=True):
            assert stage.schedule.factor == 0.1
            for found, wanted in zip(told(stage), expected, strict=True):
                assert wanted in (None, found)


def test_every_model_of_the_repository_is_in_its_table():
    for recipe in OF_THE_PAPER.values():
        assert "repository" in recipe.sources or "neither source" in recipe.about
        for name in recipe.names():
            if MODELS.get(name).reference:
                assert any(fnmatch.fnmatch(name, pattern) for pattern in REPOSITORY)


def test_every_experiment_that_sc2_benchmark_trains_has_a_recipe_of_it():
    lines = (ROOT / "tests/data/sc2_experiments.txt").read_text(encoding="utf-8").splitlines()
    named = [line.partition("\t")[2] for line in lines if not line.startswith("#")]
    trained = [experiment for experiment in named if experiment]
    assert len(trained) == 144
    for experiment in trained:
        assert "repository" in find_recipe(experiment)[1].sources


def test_what_a_source_does_not_say_is_refused(splitzoo, tmp_path):
    words = (
        "zoo",
        "train",
        "resnet50-eb_after_layer1-beta1.28e-8",
        "--data",
        tmp_path,
        "-o",
        "run",
    )
    code, _, err = splitzoo(*words, "--source", "paper")
    assert code == 1
    assert "The paper says nothing of how resnet50-eb_after_layer1" in err


def test_the_published_weights_are_those_that_the_documents_speak_of():
    """The last stage of the first recipe, though the one before was better: by the log."""
    text = (ROOT / "docs/figures.md").read_text(encoding="utf-8")
    for name in ("beta3", "beta0.3"):
        full = f"flowers-splittable_regnetx_002-fp-{name}"
        lines = (ROOT / f"benchmarks/results/flowers/logs/{full}.jsonl").read_text().splitlines()
        log = [json.loads(line) for line in lines]
        scores = [line["val_top1"] for line in log if "val_top1" in line]
        assert scores[1] > scores[2]
        assert f"{scores[1]:.2%} after its second stage, {scores[2]:.2%} after its third" in text
    record = zoo.load("flowers-splittable_regnetx_002-fp-beta3").training_record
    assert record.stages[-1].kept_epoch == record.stages[-1].epochs == 2
    assert not record.held_out
    for stem in ("flowers-entropic_student", "flowers-entropic_student-more"):
        assert recipes()[stem].stages[-1].select == "improved"
        assert recipes()[stem].held_out == 0.1


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


def test_schedules():
    steps = Schedule(kind="steps", milestones=(5, 8))
    assert [steps.at(epoch, 10) for epoch in (0, 4.9, 5, 8)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = Schedule(kind="cosine", warmup=2)
    assert cosine.at(1, 10) == pytest.approx(0.5, abs=1e-3)
    assert [cosine.at(epoch, 10) for epoch in (2, 6, 10)] == pytest.approx([1, 0.5, 0])
    # Eq. 7 of the SC2 paper.
    assert Schedule(kind="polynomial").at(5, 10) == pytest.approx(0.5**0.9)
    # Other epochs scale a recipe's schedule.
    recipe = find_recipe("splittable_resnet50-fp-beta0.16")[1]
    first, second = recipe.with_epochs([20, 4]).stages
    assert (first.epochs, first.schedule.milestones) == (20, (10, 16))
    assert (second.epochs, second.schedule.milestones) == (4, (2,))
    assert recipe.with_epochs([]) is recipe
