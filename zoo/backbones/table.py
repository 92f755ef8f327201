"""The backbones of the SC2 paper as one table: cut points, input, weights. Imports no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from splitrun.errors import SpecError
from splitrun.preprocessing import Preprocessing
from splitrun.registry import Registry

from ..bottleneck_specs import Layout

BOTTLENECK_STRIDE = 4
"""Pixels per feature where the bottlenecks of Entropic Student end."""
DENSE_STRIDES = (4, 8, 16, 32)
"""Pixels per feature of the layers that detection and segmentation use."""


@dataclass(frozen=True)
class Stage:
    """A layer after which a backbone can be cut.

    Attributes:
        layer: timm's path of the module, such as ``"layer1"`` or ``"patch_embed.backbone"``.
        channels: Channels of its output (N, channels, ⌈H / stride⌉, ⌈W / stride⌉).
        stride: Pixels of the input per feature, along each side.
    """

    layer: str
    channels: int
    stride: int


@dataclass(frozen=True)
class DetectorSizes:
    """Sizes of a Faster R-CNN on a backbone; by default torchvision's, which are the SC2 paper's.

    Attributes:
        finest: Stride of the finest level of the whole network's feature pyramid; behind a cut, the
            pyramid begins at the cut's.
        channels: Channels of each level of the pyramid.
        box_channels: Width of the box head's two layers.
        proposals: Largest number of boxes of one image that the box head sees, in evaluation.
        sampled: Number of them that it learns from, in training.
        resize: Length of the image's shorter side, pixels.
        longest: Bound of its longer side; 0 where the input's own sides are the bound.
        crop: Height and width of the input, pixels.
    """

    finest: int = DENSE_STRIDES[0]
    channels: int = 256
    box_channels: int = 1024
    proposals: int = 1000
    sampled: int = 512
    resize: int = 800
    longest: int = 1333
    crop: tuple[int, int] = (800, 1344)


@dataclass(frozen=True)
class Backbone:
    """A classification network of timm that can be split.

    Attributes:
        name: Name of the backbone here: the paper's where the paper has it, timm's otherwise.
        timm_name: timm's name of the architecture.
        stages: Layers after which it can be cut, in the order of computation; may be empty.
        preprocessing: Input of its pretrained weights.
        base_model: Hub name of its pretrained weights; empty where there are none.
        num_classes: Classes of the pretrained classifier; 0 where it has none.
        reduction: Layer that the channel-reduction network of sc2bench 0.1.1 ends after; empty
            where sc2bench has no such network.
        detector: Sizes of a detector on it.
    """

    name: str
    timm_name: str
    stages: tuple[Stage, ...]
    preprocessing: Preprocessing
    base_model: str
    num_classes: int = 1000
    reduction: str = ""
    detector: DetectorSizes = DetectorSizes()

    def stage_of(self, stride: int) -> Stage:
        """Return the last stage of a stride, whose features a bottleneck gives in its place.

        Raises:
            SpecError: There is none.
        """
        found = [stage for stage in self.stages if stage.stride == stride]
        if not found:
            raise SpecError(
                f"{self.name} cannot be cut at features of stride {stride}, which such a "
                "bottleneck gives.",
                next_step="Take another backbone, or compress its input: "
                f"{self.name}-jpeg-q90 is such a model.",
            )
        return found[-1]

    @property
    def layer(self) -> str:
        """The last layer of stride 4; SpecError where there is none."""
        return self.stage_of(BOTTLENECK_STRIDE).layer

    @property
    def channels(self) -> int:
        """Channels of the features after ``layer``; SpecError where there is none."""
        return self.stage_of(BOTTLENECK_STRIDE).channels

    @property
    def dense_stages(self) -> tuple[Stage, ...]:
        """The last stages of strides 4, 8, 16 and 32, which detection and segmentation use.

        Raises:
            SpecError: One of them is missing.
        """
        found = {stage.stride: stage for stage in self.stages}
        if missing := [stride for stride in DENSE_STRIDES if stride not in found]:
            raise SpecError(
                f"{self.name} has no features at stride {', '.join(map(str, missing))}, "
                "which detection and segmentation need.",
                next_step="Take a convolutional backbone, such as resnet50.",
            )
        return tuple(found[stride] for stride in DENSE_STRIDES)

    @property
    def reduction_layer(self) -> str:
        """The layer that sc2bench 0.1.1's channel-reduction network ends after.

        Raises:
            SpecError: sc2bench has no such network for this backbone.
        """
        if not self.reduction:
            known = ", ".join(entry.name for entry in BACKBONES if entry.reduction)
            raise SpecError(
                f"sc2bench has no channel-reduction network for {self.name}.",
                next_step=f"It has them for {known}.",
            )
        return self.reduction


BACKBONES: Registry[Backbone] = Registry("backbone")


def find_backbone(name: str) -> Backbone:
    """Return the entry of a registered backbone, or of any other network of timm.

    Raises:
        UnknownNameError: Neither knows the name; it carries close ones.
        SpecError: The network does not take images of three channels.
    """
    if name in BACKBONES:
        return BACKBONES.get(name)
    from .derive import any_timm  # imports torch

    return any_timm(name)


@dataclass(frozen=True)
class Cut:
    """A layer that a backbone is cut after, and its output.

    Attributes:
        layer: timm's path of the module.
        channels: Channels of its output.
        stride: Pixels of the input per feature; 0 after global pooling, None where the size says.
        size: Height and width of the output, where no stride tells it.
        layout: Dimensions of the output; see ``LayerBottleneck``.
    """

    layer: str
    channels: int
    stride: int | None
    size: tuple[int, int] | None = None
    layout: Layout = "map"

    def fields(self) -> dict[str, Any]:
        """Return the fields of a bottleneck after this layer."""
        return {name: value for name, value in asdict(self).items() if name != "layer"}


POOLED = "avgpool"
"""torchvision's name of a ResNet's global pooling."""
RESNET_CUTS: dict[str, Cut] = {
    **{
        f"layer{index + 1}": Cut(f"layer{index + 1}", 256 << index, 4 << index)
        for index in range(4)
    },
    POOLED: Cut("global_pool.pool", 2048, 0),
}
"""Layers after which the paper cuts ResNet-50, -101 and -152, by torchvision's names."""
_RESNETS = ("resnet50", "resnet101", "resnet152")


def find_cut(backbone: Backbone, layer: str) -> Cut:
    """Return a layer that a backbone is cut after: one that ends a stage, or any other.

    Args:
        backbone: Backbone to cut.
        layer: timm's path of a module, or ``"avgpool"``.

    Raises:
        UnknownNameError: The backbone has no such layer; it carries close ones.
        SpecError: The backbone cannot be cut after it.
    """
    if backbone.name in _RESNETS and layer in RESNET_CUTS:
        return RESNET_CUTS[layer]
    for stage in backbone.stages:
        if stage.layer == layer:
            return Cut(layer, stage.channels, stage.stride)
    from .derive import derive_cut  # imports torch

    return derive_cut(backbone.timm_name, layer, backbone.preprocessing.crop)


_Triple = tuple[float, float, float]
_IMAGENET: tuple[_Triple, _Triple] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALVES: tuple[_Triple, _Triple] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _add(
    name: str,
    timm_name: str,
    tag: str,
    stages: Sequence[tuple[str, int, int]],
    pixels: tuple[int, int],
    interpolation: Literal["bilinear", "bicubic"],
    normalisation: tuple[_Triple, _Triple] = _IMAGENET,
    reduction: str = "",
    **more: Any,
) -> None:
    """Register a backbone, under timm's name too; ``pixels`` are the resized and cropped side."""
    (resize, crop), (mean, std) = pixels, normalisation
    backbone = Backbone(
        name=name,
        timm_name=timm_name,
        stages=tuple(Stage(*stage) for stage in stages),
        preprocessing=Preprocessing(
            resize=resize, crop=(crop, crop), interpolation=interpolation, mean=mean, std=std
        ),
        base_model=f"timm/{timm_name}.{tag}",
        reduction=reduction,
        **more,
    )
    # EfficientNet-L2 is here at two sizes, so timm's name would not say which.
    aliases = [timm_name] if timm_name not in (name, "tf_efficientnet_l2") else []
    BACKBONES.register(name, backbone, aliases=aliases)


# He et al. 2016, "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385);
# torchvision's weights.
_RESNET_STAGES = [(f"layer{index + 1}", 256 << index, 4 << index) for index in range(4)]
for _name in _RESNETS:
    _add(_name, _name, "tv_in1k", _RESNET_STAGES, (256, 224), "bilinear", reduction="layer2")

# Radosavovic et al. 2020, "Designing Network Design Spaces" (https://arxiv.org/abs/2003.13678);
# sc2-benchmark's input: the crop of the authors' weights, 0.875, not of timm's newer ones.
_REGNET_STAGES = [("s1", 144, 4), ("s2", 288, 8), ("s3", 576, 16), ("s4", 1296, 32)]
_add("regnety6.4gf", "regnety_064", "pycls_in1k", _REGNET_STAGES, (256, 224), "bicubic")

# Steiner et al. 2022, "How to train your ViT?" (https://arxiv.org/abs/2106.10270): R26+S/32, the
# stages of a ResNet, then a transformer.
_HYBRID_STAGES = [
    (f"patch_embed.backbone.stages.{index}", 256 << index, 4 << index) for index in range(4)
]
_add(
    "hybrid_vit_small_r26_s32_224",
    "vit_small_r26_s32_224",
    "augreg_in21k_ft_in1k",
    _HYBRID_STAGES,
    (248, 224),
    "bicubic",
    _HALVES,
)

# Huang et al. 2017, "Densely Connected Convolutional Networks" (https://arxiv.org/abs/1608.06993);
# torchvision's weights.
for _name, _third, _fourth in (("densenet169", 1280, 1664), ("densenet201", 1792, 1920)):
    _DENSE_STAGES = [
        ("features.denseblock1", 256, 4),
        ("features.transition1", 128, 8),
        ("features.denseblock2", 512, 8),
        ("features.transition2", 256, 16),
        ("features.denseblock3", _third, 16),
        ("features.transition3", _third // 2, 32),
        ("features.norm5", _fourth, 32),
    ]
    _after = "features.transition2"
    _add(_name, _name, "tv_in1k", _DENSE_STAGES, (256, 224), "bilinear", reduction=_after)

# Szegedy et al. 2016, "Rethinking the Inception Architecture" (https://arxiv.org/abs/1512.00567);
# torchvision's weights. Its convolutions have no padding: 299 pixels give 71 and 35 features, not
# 75 and 38, so no layer of it has the features that a bottleneck of stride 4 gives.
_add("inception_v3", "inception_v3", "tv_in1k", [], (342, 299), "bilinear", _HALVES, "Pool2")

# Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification"
# (https://arxiv.org/abs/1911.04252), at its two input sizes.
_L2_STAGES = [("blocks.1", 104, 4), ("blocks.2", 176, 8), ("blocks.4", 480, 16)]
_L2_STAGES += [("blocks.6", 1376, 32)]
for _size, _pixels in (("", (833, 800)), ("_475", (507, 475))):
    _name, _tag = f"tf_efficientnet_l2_ns{_size}", f"ns_jft_in1k{_size}"
    _add(_name, "tf_efficientnet_l2", _tag, _L2_STAGES, _pixels, "bicubic")

# Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow's blog: no squeeze
# and excitation, ReLU6. Padded as in TensorFlow; without that, and timm's plain name, its weights
# lose 8 points.
# A detector for a board: less than a tenth of the operations of the paper's, and no level of stride
# 4, which small objects of large images need.
_MOBILE_DETECTOR = DetectorSizes(
    finest=8,
    channels=128,
    box_channels=256,
    proposals=300,
    sampled=256,
    resize=320,
    longest=0,
    crop=(320, 448),
)
_LITE_STAGES = [("blocks.1", 24, 4), ("blocks.2", 40, 8), ("blocks.4", 112, 16)]
for _number, _pixels, _deepest in (
    (0, (256, 224), 320),
    (1, (272, 240), 320),
    (2, (292, 260), 352),
):
    _name = f"tf_efficientnet_lite{_number}"
    _add(
        _name,
        _name,
        "in1k",
        [*_LITE_STAGES, ("blocks.6", _deepest, 32)],
        _pixels,
        "bicubic",
        _HALVES,
        detector=_MOBILE_DETECTOR,
    )
