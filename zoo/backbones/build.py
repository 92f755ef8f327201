"""Builds timm's networks, whole or cut, with weights from torch's random generator."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from splitrun.errors import SpecError, UnknownNameError

from ..bottleneck_specs import Layout
from ..deprecations import quiet_torchscript
from . import cut

with quiet_torchscript():
    import timm

_NAME = re.compile(r"(?P<architecture>[A-Za-z0-9_]+)(\.(?P<tag>[A-Za-z0-9_]+))?")
_GATE = re.compile(r"gain|scale|gamma\w*")
_CLOSED = 1e-3
"""Size below which a factor would leave a branch, or all, out of an untrained network's output."""
_STD = 0.02
"""Deviation of the values that replace a matrix of zeros: timm's own for transformers."""


def build_whole(
    timm_name: str,
    num_classes: int = 1000,
    input_size: tuple[int, int] | None = None,
    *,
    output_stride: int | None = None,
) -> nn.Module:
    """Build a whole network.

    Factors of residual branches that timm starts at or near zero are 1, and classifiers of zeros
    are random, so that all layers of an untrained network take part. No name is looked up online.

    Args:
        timm_name: timm's name of the architecture; a tag, as in ``resnet50.tv_in1k``, only sets
            the input size.
        num_classes: Number of classes of the classifier.
        input_size: Height and width of the images, pixels, for networks that are built for one
            size; None for the size of the pretrained weights.
        output_stride: Pixels per feature of the last layers, whose convolutions are dilated
            instead of strided beyond it; None for timm's default.

    Returns:
        Image (N, 3, H, W) float32 to logits (N, num_classes) float32.

    Raises:
        UnknownNameError: timm has no such architecture; it carries close ones.
        SpecError: timm does not build it for that input size or output stride.
    """
    check_name(timm_name)
    settings: dict[str, Any] = {}
    config = timm.get_pretrained_cfg(timm_name)
    if input_size is not None and config is not None and config.fixed_input_size:
        own_size = tuple(config.input_size[1:])
        # Not every such network takes its own size as an argument.
        settings |= {} if own_size == tuple(input_size) else {"img_size": tuple(input_size)}
    if output_stride is not None:
        settings["output_stride"] = output_stride
    try:
        model = timm.create_model(timm_name, pretrained=False, num_classes=num_classes, **settings)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{key} {value}" for key, value in settings.items())
        raise SpecError(
            f"timm does not build {timm_name}{f' with {given}' if given else ''}: "
            + (str(error) or f"{type(error).__name__}, without a reason")
        ) from error
    _open_gates(model)
    return model


def build_head(
    timm_name: str,
    layer: str,
    input_size: tuple[int, int] | None = None,
    layout: Layout = "map",
) -> fx.GraphModule:
    """Build the part of a network up to a layer; see :func:`build_whole` and :func:`.cut.head`."""
    return cut.head(build_whole(timm_name, input_size=input_size), layer, layout)


def build_tail(
    timm_name: str,
    layer: str | None,
    num_classes: int = 1000,
    input_size: tuple[int, int] | None = None,
    layout: Layout = "map",
) -> nn.Module:
    """Build the part of a network after a layer, or the whole network where that is None.

    See :func:`build_whole`, whose ``input_size`` is that of the images that the features come from,
    and :func:`.cut.tail`.
    """
    whole = build_whole(timm_name, num_classes, input_size)
    return whole if layer is None else cut.tail(whole, layer, layout)


def build_features(
    timm_name: str,
    after: str | None,
    layers: Sequence[str],
    output_stride: int | None = None,
    input_size: tuple[int, int] | None = None,
) -> fx.GraphModule:
    """Build the part of a network from one layer to several others, for dense tasks.

    See :func:`build_whole` and :func:`.cut.features`. An ``output_stride`` of 8 is torchvision's
    ``replace_stride_with_dilation=[False, True, True]`` for ResNets.
    """
    whole = build_whole(timm_name, input_size=input_size, output_stride=output_stride)
    return cut.features(whole, layers, after)


def check_name(timm_name: str) -> str:
    """Return timm's name of the architecture, without a tag.

    Raises:
        UnknownNameError: timm has no such architecture, or no such weights of it. Names that timm
            would look up elsewhere, such as ``hf-hub:…``, are none of its own.
    """
    found = _NAME.fullmatch(timm_name)
    architecture = found["architecture"] if found else timm_name
    known = timm.list_models()
    if architecture not in known:
        matches = difflib.get_close_matches(architecture, known)
        advice = "timm's names: python -c 'import timm; print(timm.list_models())'"
        raise UnknownNameError("backbone", timm_name, matches, next_step=advice)
    tagged = timm.list_pretrained(f"{architecture}.*")
    if timm_name != architecture and timm_name not in tagged:
        matches = difflib.get_close_matches(timm_name, tagged)
        advice = f"Without a tag: {architecture}"
        raise UnknownNameError("backbone", timm_name, matches, next_step=advice)
    return architecture


@torch.no_grad()
def _open_gates(model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta or not (name == "weight" or _GATE.fullmatch(name)):
                continue
            if parameter.abs().max() >= _CLOSED:
                continue
            if name == "weight" and parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=_STD)
            else:
                nn.init.ones_(parameter)
