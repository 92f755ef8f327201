"""What a backbone is, as data: where it can be cut, its input, its weights. Imports no torch."""

from dataclasses import dataclass

from splitrun.errors import SpecError
from splitrun.preprocessing import Preprocessing
from splitrun.registry import Registry

BOTTLENECK_STRIDE = 4
"""Pixels per feature where the bottlenecks of Entropic Student end."""


@dataclass(frozen=True)
class Stage:
    """A layer after which a backbone can be cut.

    Attributes:
        layer: timm's path of the module, such as ``"layer1"`` or ``"patch_embed.backbone"``.
        channels: Of its output (N, channels, ⌈H / stride⌉, ⌈W / stride⌉).
        stride: Pixels of the input per feature, along each side.
    """

    layer: str
    channels: int
    stride: int


@dataclass(frozen=True)
class Backbone:
    """A classification network of timm that can be split.

    Attributes:
        name: Ours: the paper's where the paper has it, timm's otherwise.
        timm_name: timm's name of the architecture.
        stages: Where it can be cut, in the order of computation; may be empty.
        preprocessing: Of its pretrained weights.
        base_model: Hub name of its pretrained weights; empty where there are none.
        num_classes: Of the pretrained classifier; 0 where it has none.
        reduction: The layer that the channel-reduction network of sc2bench 0.1.1 ends after;
            empty where sc2bench has no such network.
    """

    name: str
    timm_name: str
    stages: tuple[Stage, ...]
    preprocessing: Preprocessing
    base_model: str
    num_classes: int = 1000
    reduction: str = ""

    @property
    def stage(self) -> Stage:
        """The last stage of stride 4, whose features a bottleneck gives in its place.

        Raises:
            SpecError: There is none.
        """
        found = [one for one in self.stages if one.stride == BOTTLENECK_STRIDE]
        if not found:
            raise SpecError(
                f"{self.name} cannot be cut at features of stride {BOTTLENECK_STRIDE}, which a "
                "bottleneck of Entropic Student gives.",
                next_step="Take another backbone, or compress its input: "
                f"{self.name}-jpeg-q90 is such a model.",
            )
        return found[-1]

    @property
    def layer(self) -> str:
        """The layer that a bottleneck of stride 4 ends after; SpecError where there is none."""
        return self.stage.layer

    @property
    def channels(self) -> int:
        """Channels of the features after ``layer``; SpecError where there is none."""
        return self.stage.channels

    @property
    def reduction_layer(self) -> str:
        """The layer that sc2bench 0.1.1's channel-reduction network ends after.

        Raises:
            SpecError: It has no such network for this backbone.
        """
        if not self.reduction:
            known = ", ".join(one.name for one in BACKBONES if one.reduction)
            raise SpecError(
                f"sc2bench has no channel-reduction network for {self.name}.",
                next_step=f"It has them for {known}.",
            )
        return self.reduction


BACKBONES: Registry[Backbone] = Registry("backbone")


def register(backbone: Backbone, *aliases: str) -> Backbone:
    """Add a backbone to the registry, also under other names.

    Raises:
        DuplicateNameError: One of the names is taken.
    """
    return BACKBONES.register(backbone.name, backbone, aliases=aliases)
