"""Each family of models, small, the whole way: build, code, save, split, check, profile."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import BOTTLENECKS, TASKS, small_spec

from splitrun.bundle import open_bundle
from splitrun.errors import DesyncError
from splitrun.halves import Device, Edge
from splitzoo import export, zoo
from splitzoo.profile.measure import profile_bundle, profile_model

# Bottlenecks for classification, and one dense task; the others differ less, or take longer.
LIKE_OTHERS = ("avif", "bmshj2018-factorized", "bmshj2018-hyperprior")
FAST = [("image-classification", kind) for kind in BOTTLENECKS if kind not in LIKE_OTHERS]
FAST += [("semantic-segmentation", "fp")]
SLOW = [("image-classification", kind) for kind in LIKE_OTHERS]
SLOW += [(task, kind) for task in TASKS[1:] for kind in ("mshp", "jpeg")]
SLOW += [("object-detection", "fp")]
CASES = [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]
# What begins processes or measures is run for those whose wire or predictions differ most.
FEW = [case for case in FAST if case[1] in ("fp", "jpeg", "mbt2018")]
few = pytest.mark.parametrize("family", FEW, ids="-".join, indirect=True)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def family(request):
    return zoo.build(small_spec(*request.param))


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    path = tmp_path_factory.mktemp("family") / "bundle"
    export.split(family, path)
    return path


@pytest.fixture(scope="module")
def photo_tensor(tmp_path_factory, photo):
    path = tmp_path_factory.mktemp("images") / "photo_tensor.png"
    with Image.open(photo) as whole:
        whole.convert("RGB").crop((100, 50, 400, 350)).resize((150, 120)).save(path)
    return path


def load(model, path):
    return torch.from_numpy(model.spec.preprocessing.load(path))


def flat(output) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for found in output for tensor in found.values()]


@torch.no_grad()
def test_an_image_goes_through_the_bytes(family, photo_tensor) -> None:
    image = load(family, photo_tensor)
    (stream,) = family.compress(image)
    through, around = flat(family.decompress([stream])), flat(family(image))
    assert len(stream) > 16
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(through, around, strict=True))
    tensors, wire = family.wire_tensors(image), family.spec.wire
    said = [(tensor.dtype, (1, *tensor.shape)) for tensor in wire]
    assert [(str(tensor.dtype), tensor.shape) for tensor in tensors] == said
    assert [tensor.name for tensor in wire] == list(family.bottleneck.wire_names)
    # A device that sent the same whatever it saw would pass everything else.
    assert np.unique(tensors[0]).size >= 3


def sends_floats(model) -> bool:
    """Features, or the range of 8-bit values: exact to the last bit only in one order of sums."""
    return any(tensor.dtype == "float32" for tensor in model.spec.wire)


def test_a_batch_is_coded_image_by_image_and_as_the_saved_model_does(
    family, photo_tensor, tmp_path
) -> None:
    image = load(family, photo_tensor)
    batch, alone = family.compress(torch.cat([image, image.flip(3)]))[0], family.compress(image)[0]
    if sends_floats(family):
        # The last bits of a batch's features may differ, and with them what rounds to a grey level.
        assert abs(len(batch) - len(alone)) <= 8
    else:
        assert batch == alone
    again = zoo.load(zoo.save(family, tmp_path / "saved"))
    assert again.compress(image) == [alone]
    assert again.digest() == family.digest()


def test_the_bundle_passes_every_check(folder) -> None:
    result = export.verify(folder)
    device, (edge,) = result.selftest.device, result.selftest.edge.values()
    assert device.symbols_differing <= device.symbols_tied
    assert device.stream_rewritten
    assert edge.output_relative_error <= 1e-4


@torch.no_grad()
def test_both_halves_give_what_the_model_gives(family, folder, photo_tensor) -> None:
    bundle = open_bundle(folder)
    image = family.spec.preprocessing.load(photo_tensor)
    (stream,) = Device(bundle).encode(image)
    if not sends_floats(family):
        assert stream == family.compress(torch.from_numpy(image))[0]
    outputs = Edge(bundle).decode(stream)
    if family.spec.task != "object-detection":
        expected = family.decompress([stream]).numpy()
        assert np.abs(outputs[0] - expected).max() <= 1e-4 * np.abs(expected).max()


@few
def test_an_image_is_answered_in_two_processes(family, folder, photo_tensor) -> None:
    (run,) = export.run(folder, [photo_tensor])
    filled = {
        "image-classification": run.top,
        "object-detection": run.detections,
        "semantic-segmentation": run.shares,
    }
    assert filled.pop(family.spec.task)
    assert not any(filled.values())
    for found in run.detections:
        left, top, right, bottom = found.box
        assert 0 <= left < right <= 150
        assert 0 <= top < bottom <= 120


@few
def test_model_and_bundle_have_the_same_profile(family, folder, photo_tensor) -> None:
    quick = {"images": [photo_tensor], "warmup": 1, "iterations": 2}
    model, bundle = profile_model(family, **quick), profile_bundle(folder, **quick)
    assert bundle.size.model_dump(exclude={"graph_bytes", "tables_bytes"}) == model.size.model_dump(
        exclude={"graph_bytes", "tables_bytes"}
    )
    assert (bundle.compute, bundle.model_id) == (model.compute, model.model_id)
    assert bundle.rate is not None
    assert model.rate is not None
    assert bundle.rate.stream_bytes == model.rate.stream_bytes


def test_an_edge_that_computes_other_scales_says_so(tmp_path, photo_tensor) -> None:
    model = zoo.build(small_spec("image-classification", "mshp-float"))
    other = zoo.build(model.spec, seed=1)
    (stream,) = model.compress(load(model, photo_tensor))
    # The same tables and id, another hyper-decoder: what a different machine may come to.
    model.bottleneck.h_s = other.bottleneck.h_s
    with pytest.raises(DesyncError, match="scale indexes"):
        model.decompress([stream])


ARCHITECTURES = zoo.list_architectures()


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_builds_and_predictions(name) -> None:
    spec = zoo.get_spec(name)
    if getattr(spec.bottleneck, "codec", "") in ("bpg", "vtm"):
        assert zoo.build(name).spec == spec
        return
    model = zoo.build(name)
    image = torch.rand(1, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    (stream,) = model.compress(image)
    assert len(stream) > 16
    expected = [(1, *tensor.shape) for tensor in spec.wire]
    assert [tensor.shape for tensor in model.wire_tensors(image)] == expected
