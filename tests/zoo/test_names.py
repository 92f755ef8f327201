"""Models by name: what is listed, what a name means, which names are none."""

import fnmatch
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from splitrun.errors import SpecError, UnknownNameError
from splitzoo import zoo
from splitzoo.zoo.backbones.table import find_backbone
from splitzoo.zoo.kinds import TASKS
from splitzoo.zoo.models import MODELS, PATTERNS, find_spec
from splitzoo.zoo.packaged import packaged

BETAS = [0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12]
NAMES = [f"splittable_resnet50-fp-beta{beta}" for beta in BETAS]
CONFIGURATION = "ilsvrc2012/input_compression/jpeg-resnet50"

READ_BY_NAME = [name for name in zoo.list_models() if name not in packaged()]
"""What a method's pattern can read: the packaged models are what they are."""


# Lists


def test_list_models_gives_every_registered_name_once_in_order():
    names = zoo.list_models()
    assert names == MODELS.names()
    assert len(names) == len(set(names))
    assert names[:7] == NAMES


@pytest.mark.parametrize("name", READ_BY_NAME)
def test_a_registered_name_is_that_of_its_spec_and_can_be_read_by_its_family(name):
    spec = zoo.get_spec(name)
    assert spec.name == name
    # The registered entry is what the name says, but for where it was published.
    (read,) = (spec for spec in (read(name) for read in PATTERNS) if spec is not None)
    assert read == spec.model_copy(update={"reference": ""})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("resnet50-fp-beta0.08", [NAMES[0], f"faster_rcnn_{NAMES[0]}"]),
        ("splittable_resnet50-fp-beta0.*", NAMES[:4]),
        ("splittable_resnet50-fp-beta[12].[25]?", NAMES[4:6]),
        ("resnet50-layer[12]-*p-q90", ["resnet50-layer1-webp-q90", "resnet50-layer2-webp-q90"]),
        # sc2-benchmark's names count too.
        ("beta5.12_from_resnet50", NAMES[6:]),
        ("ilsvrc2012/input_compression/vtm-*", ["resnet50-vtm-q63"]),
        ("RESNET50", []),
        ("nothing", []),
    ],
)
def test_list_models_takes_a_word_or_a_shell_pattern(pattern, expected):
    assert sorted(zoo.list_models(pattern)) == sorted(expected)


def test_list_models_filters_by_method_and_by_task():
    methods = Counter(spec.method for spec in MODELS if spec.name not in packaged())
    # Of the experiments, and those for comparison.
    assert methods == {
        "entropic-student": 73 + 11,
        "end-to-end": 15,
        "channel-reduction": 18 + 7,
        "fine-tuning": 38,
        "feature-compression": 2 + 8,
        "input-compression": 22 + 7 + 14 + 2 + 7,
    }
    for method in methods:
        assert zoo.list_models(method=method) == [
            spec.name for spec in MODELS if spec.method == method
        ]
    prefixes = {"object-detection": "faster_rcnn_", "semantic-segmentation": "deeplabv3_"}
    dense = tuple(prefixes.values())
    for task in TASKS:
        prefix = prefixes.get(task)
        assert zoo.list_models(task=task) == [
            name
            for name in zoo.list_models()
            if (name.startswith(prefix) if prefix else not name.startswith(dense))
        ]


def test_any_backbone_takes_the_published_reduction_and_an_entropy_bottleneck():
    reduced = zoo.get_spec("splittable_densenet169-bq3ch")
    assert reduced.bottleneck.network == "resnet-24"
    assert reduced.cut == find_backbone("densenet169").layer
    narrow = zoo.get_spec("splittable_regnetx_002-bq3ch").bottleneck
    assert (narrow.channels, narrow.features) == (3, 24)
    assert zoo.get_spec("splittable_resnet50-bq3ch").bottleneck.features is None
    spec = zoo.get_spec("regnetx_002-eb_after_s2-beta0.1")
    assert (spec.cut, spec.bottleneck.channels, spec.bottleneck.stride) == ("s2", 56, 8)


@pytest.mark.parametrize(
    ("cut", "sent", "bottleneck"),
    [
        # By the papers: He et al. 2016; Mehta and Rastegari 2022; Szegedy et al. 2016;
        # Touvron et al. 2021 (14² patches and a class token); Tolstikhin et al. 2021; Liu et al.
        # 2021; Tan and Le 2019.
        ("resnet18-layer2", (128, 28, 28), {"stride": 8}),
        ("resnet34-layer3.2", (256, 14, 14), {"stride": 16}),
        ("resnet18-maxpool", (64, 56, 56), {"stride": 4}),
        ("resnet18-conv1", (64, 112, 112), {"stride": 2}),
        ("resnet18-avgpool", (512, 1, 1), {"stride": 0, "layout": "map"}),
        ("resnet18-global_pool", (512, 1, 1), {"stride": 0, "layout": "vector"}),
        ("mobilevit_xxs-stages.3", (64, 16, 16), {"stride": 16}),
        ("inception_v3-Mixed_5d", (288, 35, 35), {"stride": None, "size": (35, 35)}),
        ("deit_tiny_patch16_224-blocks.3", (192, 197, 1), {"stride": None, "layout": "tokens"}),
        ("mixer_s16_224-blocks.2", (512, 196, 1), {"stride": None, "layout": "tokens"}),
        ("swin_tiny_patch4_window7_224-layers.1", (192, 28, 28), {"stride": 8, "layout": "map"}),
        ("efficientnet_b0-blocks.2", (40, 28, 28), {"stride": 8}),
    ],
)
def test_any_backbone_is_cut_after_any_layer(cut, sent, bottleneck):
    backbone, layer = cut.split("-")
    for name in (f"{cut}-jpeg-q50", f"{cut}-webp-q0", f"{backbone}-eb_after_{layer}-beta0.1"):
        spec = zoo.get_spec(name)
        assert spec.name == name
        assert spec.wire[0].shape == sent
        given = spec.bottleneck.model_dump()
        assert {key: given[key] for key in bottleneck} == bottleneck
        assert spec.num_classes == 1000


def test_what_is_not_trained_has_the_classes_of_its_weights_after_a_layer_too():
    # Kolesnikov et al. 2020: ImageNet-21k as it was, 21,843 classes.
    spec = zoo.get_spec("resnetv2_50x1_bit.goog_in21k-stages.1-jpeg-q9")
    assert (spec.num_classes, spec.dataset) == (21843, "imagenet-21k")
    assert spec.bottleneck.channels == 512


@pytest.mark.parametrize(
    ("filters", "pattern"),
    [
        ({"backbone": "regnety"}, "*regnety6.4gf*"),
        # timm's name of the same.
        ({"backbone": "regnety_064"}, "*regnety6.4gf*"),
        ({"backbone": "resnet101"}, "*resnet101*"),
        ({"backbone": "densenet"}, "splittable_densenet*"),
        ({"beta": 0.16}, "*-beta0.16"),
        ({"beta": 1e-15}, "*-beta1.0e-15"),
        ({"beta": 1.024e-7, "method": "end-to-end"}, "*-beta1.024e-7-e2e"),
        ({"beta": 0.08, "task": "object-detection"}, "faster_rcnn_splittable_resnet50-fp-beta0.08"),
        ({"backbone": "vit", "beta": 20.48}, "*vit*-beta20.48"),
        ({"pattern": "*mshp*", "backbone": "resnet101", "beta": 0.64}, "*101-mshp-beta0.64"),
        ({"method": "end-to-end", "task": "semantic-segmentation"}, "deeplabv3_*-e2e"),
        ({"backbone": "mobilenet"}, ""),
        ({"beta": 0.081}, ""),
        ({"method": "other"}, ""),
        ({"task": "other"}, ""),
    ],
    ids=str,
)
def test_list_models_filters(filters, pattern):
    expected = fnmatch.filter(zoo.list_models(), pattern)
    assert zoo.list_models(**filters) == expected
    assert bool(expected) == bool(pattern)


def test_list_models_of_what_is_at_hand_asks_nobody(hub, tiny_folder, tmp_path):
    carried = list(packaged())
    assert zoo.list_models(pretrained=True) == carried
    hub.publish(f"splitzoo/{NAMES[1]}", tiny_folder)
    zoo.load(NAMES[1])
    hub.requests.clear()
    assert zoo.list_models(pretrained=True) == [NAMES[1], *carried]
    assert set(zoo.list_models("mshp", pretrained=True)) <= set(carried)
    assert hub.seen() == []


def test_listing_models_and_reading_their_specs_loads_no_heavy_package():
    program = """
import sys
import splitzoo, splitzoo.zoo.hub, splitzoo.zoo.hub_push
from splitzoo import zoo
for name in zoo.list_models():
    spec = zoo.get_spec(name)
    assert zoo.ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.wire and spec.strength and spec.bottleneck.device
for name in ("splittable_resnet50-mshp-beta7", "resnet101-layer1-jpeg-q3", "resnet152-webp-q1"):
    zoo.get_spec(name)
heavy = {"torch", "torchvision", "timm", "compressai", "onnx", "onnxruntime"}
heavy |= {"huggingface_hub", "safetensors"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# Specs


def test_what_sets_the_rate_is_said_in_words():
    names = ("splittable_resnet50-fp-beta0.08", "splittable_resnet50-fp-beta1.28e-8-e2e")
    names += ("resnet50-vtm-q63", "splittable_resnet50-bq3ch", "splittable_resnet50-fp")
    said = [zoo.get_spec(name).strength for name in names]
    assert said == ["β 0.08", "β 1.28e-08", "quality 63", "3 ch", "—"]


# Names of a family that are not registered


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("splittable_resnet50-fp", {"beta": None, "method": "entropic-student", "cut": "layer1"}),
        ("splittable_resnet50-shp-beta0.5", {"beta": 0.5, "kind": "scale-hyperprior"}),
        ("splittable_resnet50-fp-beta3e-9-e2e", {"beta": 3e-9, "method": "end-to-end"}),
        ("faster_rcnn_splittable_resnet101-mshp-beta2", {"beta": 2, "num_classes": 91}),
        ("splittable_resnet50-bq24ch", {"channels": 24, "network": "resnet-24"}),
        ("deeplabv3_splittable_resnet101-bq7ch", {"channels": 7, "num_classes": 21}),
        ("splittable_densenet169-bq4ch_v0.1.1", {"channels": 4, "network": "densenet"}),
        ("splittable_resnet152-bq999ch_v0.1.1", {"channels": 999, "network": "resnet-20"}),
        ("resnet101-eb_after_layer3-beta0.01", {"beta": 0.01, "channels": 1024, "stride": 16}),
        ("resnet152-layer4-webp-q0", {"quality": 0, "codec": "webp", "cut": "layer4"}),
        ("resnet50-layer1-jpeg-q100", {"quality": 100, "channels": 256}),
        ("resnet50-jpeg-q7", {"quality": 7, "codec": "jpeg", "cut": None}),
        ("faster_rcnn_resnet101-bpg-q51", {"quality": 51, "task": "object-detection"}),
        ("deeplabv3_resnet50-vtm-q0", {"quality": 0, "codec": "vtm"}),
        ("resnet101-mean_scale_hyperprior-q1", {"quality": 1, "architecture": "mbt2018-mean"}),
        # Networks of timm that are not registered.
        ("splittable_test_resnet-fp", {"backbone": "test_resnet", "cut": "layer1"}),
        ("deeplabv3_splittable_test_resnet-fp", {"num_classes": 21, "backbone": "test_resnet"}),
        ("test_vit-jpeg-q30", {"backbone": "test_vit", "cut": None, "quality": 30}),
    ],
)
def test_a_name_of_a_family_is_read(name, expected):
    assert name not in MODELS
    spec = zoo.get_spec(name)
    assert (spec.name, spec.reference) == (name, "")
    assert name not in zoo.list_models()
    facts = {"kind": spec.bottleneck.kind, **spec.bottleneck.model_dump(), **spec.model_dump()}
    assert {fact: facts[fact] for fact in expected} == expected


@pytest.mark.parametrize(
    "name",
    [
        "splittable_convnext_atto-fp",
        "splittable_test_resnet-mshp-beta0.5",
        "splittable_test_efficientnet-shp-e2e",
        "test_resnet-jpeg-q50",
        "test_resnet-layer2-jpeg-q50",
        "test_resnet-eb_after_avgpool-beta0.1",
        "test_vit-blocks.2-webp-q50",
        "test_vit-eb_after_blocks.2-beta0.1",
        "test_resnet-global_pool-jpeg-q90",
    ],
)
def test_a_name_of_a_family_is_built(name):
    import torch

    model = zoo.build(name, seed=2)
    assert model.spec == find_spec(name)
    image = torch.rand(1, *model.spec.input_shape, generator=torch.Generator().manual_seed(0))
    (stream,) = model.compress(image)
    assert model.decompress([stream]).shape == (1, model.spec.num_classes)
    with torch.no_grad():
        assert torch.equal(model.decompress([stream]), model(image))
    sent = [(tensor.dtype.name, tensor.shape[1:]) for tensor in model.wire_tensors(image)]
    assert sent == [(tensor.dtype, tensor.shape) for tensor in model.spec.wire]


@pytest.mark.parametrize(
    "name",
    [
        *("splittable_resnet50", "splittable_resnet50-", "splittable_resnet50-fp-0.5"),
        *("splittable_resnet50-fp-beta0.08\n", " splittable_resnet50-fp-beta0.08"),
        *("Splittable_resnet50-fp-beta0.08", "splittable_resnet50-jpeg-q5"),
        *("resnet50-jpeg-5", "hf-hub:somebody", "a" * 300, "\0"),
    ],
    ids=lambda name: repr(name[:50]),
)
def test_a_name_of_no_form_is_refused(name):
    with pytest.raises(UnknownNameError) as caught:
        zoo.get_spec(name)
    assert (caught.value.kind, caught.value.name) == ("model", name)
    assert "splitzoo zoo list" in caught.value.next_step


BETA = "β is a number from 0 to 1e99"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(
            (f"splittable_resnet50-fp-beta{beta}", BETA)
            for beta in ("", "-1", "nan", ".5", "1e400")
        ),
        ("splittable_resnet50-fp-beta0.08-e2e-e2e", BETA),
        # Neither 8 nor 0.08 without asking.
        ("splittable_resnet50-fp-beta008", "is beta8 or beta0.08 meant?"),
        ("resnet50-eb_after_layer1-beta01", "is beta1 or beta0.1 meant?"),
        ("splittable_resnet50-fp-beta" + "1" * 110, "pattern"),
        *(
            (
                f"splittable_resnet50-bq{count}ch",
                "number of channels is a whole number from 1 to 999",
            )
            for count in ("0", "1000", "", "03", "1.5")
        ),
        ("splittable_resnet50-bq3ch_v0.2", "the ending is _v0.1.1 or none, not _v0.2"),
        # Of sc2bench 0.1.1 there are networks for some backbones alone.
        ("splittable_test_resnet-bq3ch_v0.1.1", "no channel-reduction network for test_resnet"),
        *(
            (f"resnet50-{codec}-q{quality}", f"quality of {codec} is a whole number from {span}")
            for codec, quality, span in (
                *(("jpeg", wrong, "0 to 100,") for wrong in ("101", "-1", "07", "", "5o")),
                *(("bpg", "52", "0 to 51,"), ("vtm", "64", "0 to 63,")),
                *(("factorized_prior", "0", "1 to 8,"), ("factorized_prior", "9", "1 to 8,")),
            )
        ),
        ("resnet50-layer3-jpeg-q101", "quality of jpeg is a whole number from 0 to 100, not '101'"),
        ("flowers-regnetx_002-s1-webp-q07", "quality of webp is a whole number"),
        ("resnet50-png-q5", "png loses nothing"),
        ("faster_rcnn_resnet50-layer1-jpeg-q5", "is not cut after a layer"),
        ("deeplabv3_resnet50-eb_after_layer1-beta1", "is not cut after a layer"),
        # What the paper's figures of such networks say: other tensors pass beside these.
        ("resnet18-layer1.0.conv1-jpeg-q5", "later layers also need what was computed before it"),
        ("xcit_nano_12_p8_224-eb_after_blocks.3-beta1", "later layers also need"),
    ],
    ids=lambda value: repr(value[:50]),
)
def test_a_name_of_a_form_whose_part_cannot_be_says_why(name, reason):
    with pytest.raises(SpecError) as caught:
        zoo.get_spec(name)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("name", "kind", "part", "meant"),
    [
        ("splittable_resnet50-fpp-beta1", "prior", "fpp", "fp"),
        ("splittable_resnet50-mhsp", "prior", "mhsp", "mshp"),
        ("resnet50-jpg-q50", "codec", "jpg", "jpeg"),
        ("resnet50-gif-q3", "codec", "gif", ""),
        ("resnet50-layer3-avif-q30", "codec of features", "avif", ""),
        ("flowers-regnetx_002-gif-q4", "codec", "gif", ""),
        ("resnet50-eb_after_layer5-beta0.1", "layer of resnet50", "layer5", "layer4"),
        ("resnet18-layr2-jpeg-q5", "layer of resnet18", "layr2", "layer2"),
        ("test_vit-eb_after_block.1-beta1", "layer of test_vit", "block.1", "blocks.1"),
        ("flowers-regnetx_002-s9-jpeg-q5", "layer of regnetx_002", "s9", ""),
        ("mobilenetv9_100-layer1-jpeg-q5", "backbone", "mobilenetv9_100", "mobilenetv2_100"),
        ("flowers-regnetx_003-jpeg-q5", "model", "flowers-regnetx_003-jpeg-q5", ""),
    ],
)
def test_a_part_that_is_not_there_is_answered_with_those_that_are(name, kind, part, meant):
    with pytest.raises(UnknownNameError) as caught:
        zoo.get_spec(name)
    assert (caught.value.kind, caught.value.name) == (kind, part)
    if meant:
        assert meant in caught.value.matches
    there = {"prior": "fp, shp, mshp.", "codec of features": "jpeg, webp.", "codec": "jpeg, webp,"}
    assert there.get(kind, "") in caught.value.next_step
    if kind.startswith("layer"):
        assert "It can be cut after " in caught.value.next_step


@pytest.mark.parametrize(
    ("word", "matches", "said"),
    [
        ("flowers", [name for name in packaged() if "flowers" in name], "zoo list"),
        ("flowers-splittable_regnetx_002-fp-b", list(packaged())[1:4], "zoo list"),
        ("resnet50-layer1", ["resnet50-layer1-jpeg-q90", "resnet50-layer1-webp-q90"], "zoo list"),
        # Too many to list.
        ("beta0.08", [], "7 names hold it. See: splitzoo zoo list beta0.08"),
        ("SPLITTABLE", [], "names hold it"),
        ("test_vit", [], "It is a backbone; test_vit-jpeg-q90 is a model of it"),
        ("resnet50-jpeg", ["resnet50-jpeg-q90"], "zoo list"),
        ("splittable_resnet50-jpeg-q5", None, "splittable_BACKBONE-{fp, shp, mshp}[-betaβ][-e2e]"),
        ("resnet50-eb-after-layer1-beta1", None, "BACKBONE-eb_after_LAYER-betaβ"),
    ],
)
def test_a_part_of_a_name_is_answered_with_the_names_that_hold_it(word, matches, said):
    with pytest.raises(UnknownNameError) as caught:
        zoo.get_spec(word)
    assert said in caught.value.next_step
    if matches is not None:
        assert sorted(caught.value.matches) == sorted(matches)


def test_an_unknown_name_or_backbone_is_answered_with_close_ones():
    for name in ("splittable_resnet5o-fp", "resnet5o-jpeg-q3", "deeplabv3_splittable_resnet5o-fp"):
        with pytest.raises(UnknownNameError) as caught:
            zoo.get_spec(name)
        assert (caught.value.kind, caught.value.name) == ("backbone", "resnet5o")
        assert "resnet50" in caught.value.matches
        assert "timm.list_models()" in caught.value.next_step
    with pytest.raises(UnknownNameError) as caught:
        zoo.load("splitable_resnet50-fp-beta0.08")
    assert (caught.value.kind, caught.value.name) == ("model", "splitable_resnet50-fp-beta0.08")
    assert caught.value.matches[0] == "splittable_resnet50-fp-beta0.08"
    # A backbone without features of stride 4 has a way out.
    with pytest.raises(SpecError, match="test_vit") as caught:
        zoo.get_spec("splittable_test_vit-fp")
    assert "test_vit-jpeg-q90" in caught.value.next_step
    assert zoo.get_spec("test_vit-jpeg-q90").quality == 90


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "cooking"), "semantic-segmentation"),
        (("--method", "cooking"), "entropic-student"),
        (("--beta", "nan"), "finite"),
    ],
)
def test_filters_of_no_sense_are_refused(splitzoo, options, said):
    code, out, err = splitzoo("zoo", "list", *options)
    assert (code, out) == (2, "")
    assert said in err


def test_a_classifier_behind_a_codec_has_the_classes_of_its_weights():
    from splitzoo.zoo.methods import input_compression

    backbone = input_compression.find_backbone("resnet50")
    for classes, dataset in ((21841, "imagenet-22k"), (10450, "10450 classes")):
        spec = input_compression.make_spec(replace(backbone, num_classes=classes), "jpeg", 9)
        assert (spec.num_classes, spec.dataset) == (classes, dataset)
    other = find_backbone("resnetv2_50x1_bit.goog_in21k")
    assert other.num_classes == zoo.get_spec(f"{other.name}-jpeg-q9").num_classes == 21843
    with pytest.raises(SpecError, match="has no classifier"):
        zoo.get_spec("vit_small_patch14_dinov2.lvd142m-jpeg-q9")


def test_learned_codecs_of_other_widths_are_other_architectures(monkeypatch):
    from splitzoo.zoo import catalog

    names = [f"resnet50-mean_scale_hyperprior-q{quality}" for quality in (1, 4, 5, 8)]
    monkeypatch.setattr(catalog, "registered", lambda: [find_spec(name) for name in names])
    assert catalog.list_architectures() == {names[0]: names[:2], names[2]: names[2:]}


def test_a_spec_prints_as_a_table():
    spec = zoo.get_spec(NAMES[0])
    lines = str(spec).splitlines()
    assert lines[0].split() == ["name", NAMES[0]]
    assert "on the wire    symbols 24×55×55 int32" in lines
    assert all(line in repr(spec) for line in lines)
