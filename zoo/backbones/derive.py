"""Describes any network of timm that the table lacks, by looking at the network itself."""

import functools
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from splitrun.errors import SpecError
from splitrun.preprocessing import Preprocessing

from ..bottleneck_specs import Layout
from ..deprecations import quiet_torchscript
from . import cut
from .build import build_whole, check_name
from .table import BOTTLENECK_STRIDE, POOLED, Backbone, Cut, Stage

with quiet_torchscript():
    from timm.data.config import resolve_data_config

Shapes = dict[str, tuple[int, ...]]
"""Sizes of layers' outputs without the batch, channels first, by layer."""
_STRIDES = (1, 2, 4, 8, 16, 32, 64)
_LAYOUTS: dict[int, Layout] = {1: "vector", 2: "tokens", 3: "map"}
"""Layouts of features by their dimensions."""
_BATCH = 2
"""Images of a trial: more than one tells a batch from other dimensions."""


@functools.cache
def any_timm(name: str) -> Backbone:
    """Describe any network of timm.

    Its stages are those that timm names as its features; where none of them has stride 4, the last
    layer of that stride that the network can be cut after. Nothing is downloaded, and no memory
    used: the network is built on the meta device.

    Args:
        name: timm's name, with or without the tag of pretrained weights: ``convnext_atto.d2_in1k``.

    Raises:
        UnknownNameError: timm has no such network; it carries close names.
        SpecError: The network does not take images of three channels.
    """
    architecture = check_name(name)
    with torch.device("meta"):
        model = build_whole(name).eval()
    config = cast(Mapping[str, Any], model.pretrained_cfg)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise SpecError(f"{name} takes {channels} channels, not red, green and blue.")
    tag = config.get("tag")
    return Backbone(
        name=name,
        timm_name=architecture,
        stages=find_stages(model, (height, width)),
        preprocessing=_preprocessing(config),
        base_model=config.get("hf_hub_id") or (f"timm/{architecture}.{tag}" if tag else ""),
        num_classes=config["num_classes"],
    )


@functools.cache
def derive_cut(timm_name: str, layer: str, input_size: tuple[int, int]) -> Cut:
    """Describe any layer of a network of timm that the network can be cut after.

    Args:
        timm_name: timm's name of the architecture.
        layer: timm's path of a module; ``"avgpool"`` stands for the global pooling where no module
            has that name.
        input_size: Height and width of the image, pixels.

    Raises:
        UnknownNameError: The network has no such layer.
        SpecError: It cannot be cut there, or the layer's output is no tensor of features.
    """
    with torch.device("meta"):
        model = build_whole(timm_name, input_size=input_size).eval()
    modules = dict(model.named_modules())
    if layer == POOLED and layer not in modules and "global_pool.pool" in modules:
        layer = "global_pool.pool"
    cut.head(model, layer)
    cut.tail(model, layer)
    shape = output_shapes(model, input_size).get(layer)
    if shape is None:
        raise SpecError(f"{timm_name} cannot be cut after {layer}: no features come out of it.")
    layout, (height, width, *_) = _LAYOUTS[len(shape)], (*shape[1:], 1, 1)
    if height == width == 1:
        return Cut(layer, shape[0], 0, layout=layout)
    for stride in _STRIDES:
        if layout == "map" and _has_stride(shape, input_size, stride):
            return Cut(layer, shape[0], stride)
    return Cut(layer, shape[0], None, (height, width), layout)


def find_stages(model: nn.Module, input_size: tuple[int, int]) -> tuple[Stage, ...]:
    """Return the layers of stride 4 and more after which a network can be cut.

    Args:
        model: Network on the meta device or another.
        input_size: Height and width of the image, pixels.
    """
    shapes = output_shapes(model, input_size)
    named = {
        info["module"]: info["reduction"]
        for info in getattr(model, "feature_info", None) or ()
        if info["reduction"] >= BOTTLENECK_STRIDE and info["module"] in shapes
    }
    stages = [
        Stage(layer, shapes[layer][0], stride)
        for layer, stride in named.items()
        if _has_stride(shapes[layer], input_size, stride) and _can_be_cut(model, layer)
    ]
    if all(stage.stride != BOTTLENECK_STRIDE for stage in stages):
        for layer in reversed(shapes):
            fits = _has_stride(shapes[layer], input_size, BOTTLENECK_STRIDE)
            if fits and _can_be_cut(model, layer):
                stages.insert(0, Stage(layer, shapes[layer][0], BOTTLENECK_STRIDE))
                break
    return tuple(stages)


def output_shapes(model: nn.Module, input_size: tuple[int, int]) -> Shapes:
    """Return the shapes of all layers' features, in the order in which the layers end."""
    shapes: Shapes = {}
    swapped = cut.channels_last(model)

    def note(name: str, output: object) -> None:
        shapes.pop(name, None)
        if not isinstance(output, torch.Tensor) or len(output) != _BATCH:
            return
        if output.ndim - 1 in _LAYOUTS:
            last = swapped or output.ndim == 3
            shapes[name] = tuple((output.movedim(-1, 1) if last else output).shape[1:])

    hooks = [
        module.register_forward_hook(lambda _module, _given, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if name
    ]
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            model(torch.zeros(_BATCH, 3, *input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _has_stride(shape: tuple[int, ...], input_size: tuple[int, int], stride: int) -> bool:
    return shape[1:] == tuple(math.ceil(size / stride) for size in input_size)


def _can_be_cut(model: nn.Module, layer: str) -> bool:
    try:
        return layer in cut.cut_points(model, [layer])
    except SpecError:
        return False


def _preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    data = resolve_data_config(pretrained_cfg=dict(config))
    _, height, width = data["input_size"]
    known = data["interpolation"] in ("bilinear", "bicubic")
    return Preprocessing(
        resize=math.floor(max(height, width) / data["crop_pct"]),
        crop=(height, width),
        interpolation=data["interpolation"] if known else "bicubic",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
