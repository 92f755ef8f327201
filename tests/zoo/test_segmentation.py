"""Segmentation: the tail and its graph, and what is said of its class maps."""

import numpy as np
import onnx
import pytest
import torch
from dense_models import enliven
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from splitrun.engines.onnx_runtime import OnnxRuntimeSession
from splitrun.errors import BundleError, SpecError
from splitrun.predictions.segmentation import ClassShare, class_map, class_shares
from splitzoo.export.onnx_graph import write_onnx
from splitzoo.zoo.tasks.segmentation import SegmentationTail

# As 513 is: no multiple of 4, so that the features do not say the size of the input.
SIZE, FEATURES, CLASSES, CHANNELS = (97, 129), (25, 33), 6, 32


def tiny_segmentation(cut="layer1", size=SIZE):
    torch.manual_seed(0)
    return enliven(SegmentationTail("test_resnet", cut, CLASSES, size))


def some_features(seed=0, images=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, CHANNELS, *FEATURES, generator=generator)


@pytest.fixture(scope="module")
def tail():
    return tiny_segmentation()


@torch.no_grad()
def test_the_input_size_is_the_spec_s_and_not_the_features(tail):
    features = some_features()
    other = tiny_segmentation(size=(99, 132))
    assert other(features).shape == (1, CLASSES, 99, 132)
    expected = functional.interpolate(
        tail.classifier(tail.body(features)["layer4"]),
        size=(99, 132),
        mode="bilinear",
        align_corners=False,
    )
    assert torch.equal(other(features), expected)
    # The main logits with the auxiliary ones are those without.
    main, auxiliary = tail.forward_with_aux(features)
    assert torch.equal(main, tail(features))
    assert auxiliary.shape == main.shape
    assert (auxiliary - main).abs().max() > 0.1
    logits = tail(some_features(images=2))
    assert (logits.dtype, logits.shape) == (torch.float32, (2, CLASSES, *SIZE))
    assert len(logits.argmax(1).unique()) >= 3


@torch.no_grad()
def test_the_backbone_is_dilated_to_stride_8(tail):
    found = tail.body(some_features())
    assert [tuple(features.shape[2:]) for features in found.values()] == [(13, 17), (13, 17)]
    dilations = {
        name: {
            layer.dilation[0]
            for layer in getattr(tail.body, name).modules()
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
        }
        for name in ("layer2", "layer3", "layer4")
    }
    # torchvision's replace_stride_with_dilation=[False, True, True]: the first block of a dilated
    # stage has the dilation before it, and layer3 is one block here.
    assert dilations == {"layer2": {1}, "layer3": {1}, "layer4": {2, 4}}


@torch.no_grad()
def test_without_a_cut_the_tail_takes_the_image():
    tail = tiny_segmentation(cut=None)
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    cut = tiny_segmentation()
    cut.load_state_dict({name: tail.state_dict()[name] for name in cut.state_dict()})
    features = image
    for name in ("conv1", "bn1", "act1", "maxpool", "layer1"):
        features = getattr(tail.body, name)(features)
    assert features.shape[2:] == FEATURES
    assert torch.equal(tail(image), cut(features))


def test_both_heads_learn():
    tail = tiny_segmentation().train()
    features, target = some_features(images=2), torch.randint(0, CLASSES, (2, *SIZE))
    main, auxiliary = tail.forward_with_aux(features)
    losses = [functional.cross_entropy(logits, target) for logits in (main, auxiliary)]
    sum(losses).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in tail.parameters())


@pytest.mark.slow
@torch.no_grad()
def test_the_exported_graph_gives_the_same_logits_without_the_auxiliary_head(tail, tmp_path):
    path, names = tmp_path / "tail.onnx", {"input_names": ["features"], "output_names": ["logits"]}
    write_onnx(tail, [some_features()], path, **names, dynamic_batch=False, opset=20)
    session = OnnxRuntimeSession(path, threads=1)
    for seed in range(3):
        features = some_features(seed)
        (found,) = session.run({"features": features.numpy()}, ["logits"])
        expected = tail(features).numpy()
        assert found.shape == (1, CLASSES, *SIZE)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
        assert (class_map(found) == class_map(expected)).mean() > 0.999
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} == {""}
    stored = sum(np.prod(tensor.dims, dtype=int) for tensor in graph.initializer)
    auxiliary, whole = (
        sum(parameter.numel() for parameter in module.parameters())
        for module in (tail.aux_classifier, tail)
    )
    assert stored < whole - 0.9 * auxiliary


def test_a_backbone_without_features_at_all_strides_is_refused():
    with pytest.raises(SpecError, match="no features at stride"):
        SegmentationTail("test_vit", None, CLASSES, SIZE)


# Predictions


@given(st.integers(1, 256), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_map_holds_the_largest_logit_of_each_pixel(classes, height, width, seed):
    logits = np.random.default_rng(seed).normal(size=(1, classes, height, width))
    found = class_map(logits.astype(np.float32))
    assert (found.dtype, found.shape) == (np.uint8, (height, width))
    chosen = np.take_along_axis(logits[0], found[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(chosen, logits[0].max(axis=0), rtol=1e-6)


def test_padding_is_no_part_of_the_map_and_shares_are_of_all_of_it():
    logits = np.zeros((1, 3, 4, 6), np.float32)
    logits[0, 2] = 1
    logits[0, 1, 3:] = logits[0, 1, :, 5:] = 2
    assert class_map(logits, (3, 5)).tolist() == [[2] * 5] * 3
    assert class_map(logits).tolist() == [[2] * 5 + [1]] * 3 + [[1] * 6]
    classes = np.array([[0, 0, 2], [2, 0, 3]], np.uint8)
    assert class_shares(classes, ["background", "cat", "dog", "sheep"]) == [
        ClassShare(0, "background", 0.5),
        ClassShare(2, "dog", pytest.approx(1 / 3)),
        ClassShare(3, "sheep", pytest.approx(1 / 6)),
    ]
    with pytest.raises(BundleError, match="2 labels; class 2 none"):
        class_shares(np.array([[0, 2]], np.uint8), ["background", "cat"])
    for shape in ((2, 3, 4, 4), (1, 65537, 1, 1), (1, 0, 2, 2), (3, 4, 4), (1, 3)):
        with pytest.raises(BundleError, match="logits have the shape"):
            class_map(np.zeros(shape, np.float32))
