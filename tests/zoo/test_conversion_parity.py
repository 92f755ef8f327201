"""What sc2bench wrote gives, once it is converted, what sc2bench's own models give."""

import dataclasses

import pytest
import torch
from reference_checkpoints import BESIDE, lively_reference, write_checkpoint, write_old_checkpoint
from sc2bench_003 import FOLDER as OLD_SC2BENCH
from sc2bench_names import TINY, theirs

from benchmarks import sc2bench_reference as reference
from benchmarks.sc2bench_parity import Parity, check_parity
from splitrun.errors import ParityError
from splitzoo import zoo
from splitzoo.zoo.conversion.checkpoint import read_checkpoint
from splitzoo.zoo.conversion.convert import convert
from splitzoo.zoo.conversion.keys import map_tensors
from splitzoo.zoo.models import MODELS
from splitzoo.zoo.parts import in_floats

# sc2bench and what it imports use deprecated interfaces of other packages: theirs to fix.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tiny():
    """A model of one of sc2bench's architectures on a tiny backbone. Shared."""
    return zoo.build(TINY, seed=1)


@pytest.fixture
def models(monkeypatch):
    """The registry, to add to."""
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    monkeypatch.setattr(MODELS, "_aliases", dict(MODELS._aliases))
    return MODELS


@pytest.fixture
def sc2bench():
    pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test`")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def converted(name, tmp_path):
    """Write a checkpoint with sc2bench, convert it; its parity, the model, sc2bench's."""
    spec = zoo.get_spec(name)
    peer = lively_reference(spec)
    path = write_checkpoint(peer, tmp_path / "sc2bench.pt")
    conversion = convert(path, tmp_path / "out", name=name)
    assert conversion.beside == BESIDE
    model = zoo.load(tmp_path / "out")
    return check_parity(model, read_checkpoint(path).tensors), model, peer


def assert_parity(parity, model):
    images = parity.images
    assert parity.reference.startswith("sc2bench 0.1.1")
    assert parity.not_checked == ""
    assert images == (2 if model.spec.task == "image-classification" else 1)
    assert 0 <= parity.output_max_relative_error <= 1e-4
    assert parity.symbols_differing <= parity.symbols / 10_000


def assert_close(found, expected):
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


FAST = ["splittable_regnety_002-fp", "splittable_regnety_002-mshp", "splittable_resnet18-fp"]
SLOW = [
    "splittable_regnety_002-shp",
    "splittable_resnet50-fp-beta0.08",
    "splittable_resnet101-mshp-beta0.16",
    "splittable_regnety6.4gf-fp-beta0.08",
    "splittable_hybrid_vit_small_r26_s32_224-mshp-beta0.16",
    "splittable_resnet50-fp-beta1.28e-8-e2e",
    "splittable_resnet50-bq6ch",
    "splittable_resnet50-bq12ch_v0.1.1",
    "splittable_densenet169-bq12ch_v0.1.1",
    "splittable_inception_v3-bq12ch_v0.1.1",
    *(f"resnet50-eb_after_{layer}-beta1.0e-15" for layer in ("layer1", "layer3", "avgpool")),
]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
@torch.no_grad()
def test_a_classifier_that_sc2bench_wrote_gives_sc2benchs_outputs(sc2bench, tmp_path, name):
    parity, model, peer = converted(name, tmp_path)
    assert_parity(parity, model)
    model = in_floats(model)  # sc2bench's hyperpriors are
    image = torch.randn(1, *model.spec.input_shape, generator=torch.Generator().manual_seed(9))
    expected, logits = peer(image), model(image)
    if "bq" in name:
        # sc2bench's model here is without its quantiser, ours has one.
        logits = model.decoder(model.encoder(image))
    assert_close(logits, expected)
    if "bq" not in name:
        # What goes over the link gives the same.
        assert_close(model.decompress(model.compress(image)), expected)
        symbols = model.wire_tensors(image)[0]
        assert len(set(symbols.flat)) > 4
        assert parity.symbols > symbols.size


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["fp-beta0.08", "mshp-beta0.16"])
@torch.no_grad()
def test_a_detector_that_sc2bench_wrote_gives_sc2benchs_outputs(sc2bench, tmp_path, prior):
    parity, model, peer = converted(f"faster_rcnn_splittable_resnet50-{prior}", tmp_path)
    assert_parity(parity, model)
    model = in_floats(model)
    image = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(9))
    expected = list(peer.backbone(image).values())
    levels = model.decoder.tail.dense(model.decoder.g_s(model.bottleneck(model.encoder(image))))
    for level, want in zip(levels[:3], expected, strict=False):
        assert_close(level, want)


def small(models, name):
    """Register a model for small images, and return its name."""
    spec = zoo.get_spec(name)
    preprocessing = dataclasses.replace(spec.preprocessing, crop=(128, 160))
    update = {"name": f"small_{name}", "preprocessing": preprocessing}
    return models.register(f"small_{name}", spec.model_copy(update=update)).name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50-shp-beta0.16", "resnet101-fp-beta0.16"])
@torch.no_grad()
def test_a_segmentation_that_sc2bench_wrote_gives_sc2benchs_outputs(
    sc2bench, models, tmp_path, name
):
    parity, model, peer = converted(small(models, f"deeplabv3_splittable_{name}"), tmp_path)
    assert_parity(parity, model)
    model = in_floats(model)
    image = torch.randn(1, *model.spec.input_shape, generator=torch.Generator().manual_seed(9))
    expected = peer(image)["out"]
    assert_close(model(image), expected)


@pytest.mark.parametrize(
    ("changed", "saying"),
    [
        ("encoder.4.weight", "other symbols"),
        ("bottleneck.entropy_bottleneck.quantiles", "other hyper_symbols"),
        ("bottleneck.h_s.0.weight", "other symbols"),
        ("decoder.g_s.0.weight", "other outputs"),
        ("decoder.tail.head.fc.bias", "other outputs"),
    ],
)
@torch.no_grad()
def test_a_model_that_differs_is_found_out(sc2bench, changed, saying):
    spec = zoo.get_spec("splittable_regnety_002-mshp")
    checkpoint = lively_reference(spec).state_dict()
    model = zoo.build(spec)
    mapped, _ = map_tensors(spec, checkpoint, model.state_dict())
    model.load_state_dict(model.state_dict() | mapped)
    # A scale within a millionth of a boundary may have either index.
    assert check_parity(model, checkpoint).symbols_differing <= 3
    weight = model.get_parameter(changed)
    weight += 0.1 * weight.abs().max().clamp(min=0.1)
    with pytest.raises(ParityError, match=saying):
        check_parity(model, checkpoint)


def test_where_nothing_can_be_compared_the_reason_is_told(tiny, monkeypatch, sc2bench):
    parity = check_parity(tiny, theirs(tiny))
    assert parity == Parity(not_checked=parity.not_checked)
    assert parity.not_checked.startswith("sc2bench has no model on test_resnet")

    def broken(_):
        raise ImportError("no module torchdistill")

    monkeypatch.setattr(reference, "_model", broken)
    said = check_parity(tiny, {}).not_checked
    assert said == "sc2bench cannot be imported (no module torchdistill)"
    monkeypatch.setattr(reference.importlib.metadata, "version", lambda _: "0.0.3")
    said = check_parity(tiny, {}).not_checked
    assert said.startswith("sc2bench 0.0.3 is installed, not 0.1.1 (pip install")

    def absent(_):
        raise reference.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(reference.importlib.metadata, "version", absent)
    said = check_parity(tiny, {}).not_checked
    assert said.startswith("sc2bench is not installed (pip install --no-deps sc2bench==0.1.1 torch")


# sc2bench 0.0.3, with which the released models of channel reduction were trained


@pytest.mark.slow
@pytest.mark.skipif(not OLD_SC2BENCH.is_dir(), reason=f"sc2bench 0.0.3 is not in {OLD_SC2BENCH}")
@pytest.mark.parametrize("prefix", ["", "faster_rcnn_", "deeplabv3_"])
@torch.no_grad()
def test_a_checkpoint_of_version_003_gives_its_outputs(sc2bench, models, tmp_path, prefix):
    name = f"{prefix}splittable_resnet50-bq3ch"
    spec = zoo.get_spec(small(models, name) if prefix else name)
    image = torch.randn(1, *spec.input_shape, generator=torch.Generator().manual_seed(9))
    path = tmp_path / f"{spec.reference}.pt"
    (tmp_path / "exchange").mkdir()
    expected = write_old_checkpoint(spec, path, tmp_path / "exchange", image)
    conversion = convert(path, tmp_path / "out", name=spec.name if prefix else None)
    assert conversion.name == spec.name
    assert conversion.beside == tuple(sorted((*BESIDE, "config")))
    model = zoo.load(tmp_path / "out")
    assert_parity(check_parity(model, read_checkpoint(path).tensors), model)
    features = model.decoder.g_s(model.bottleneck(model.encoder(image)))
    tail = model.decoder.tail
    if spec.task == "object-detection":
        found = dict(zip("123", tail.dense(features), strict=False))
    elif spec.task == "semantic-segmentation":
        found = dict(zip(("out", "aux"), tail.forward_with_aux(features), strict=True))
    else:
        found = {"out": tail(features)}
    for name, tensor in found.items():
        assert_close(tensor, expected[name])
