"""Bottlenecks as data: kind, sizes, and the shapes of the wire tensors. Imports no torch.

``bottleneck_parts`` in :mod:`splitzoo.zoo.parts` builds each kind's modules.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Channels = Annotated[int, Field(ge=1, le=4096)]
# Weights grow with the square of these, so a config could ask for any amount of memory. A decoder
# is twice as wide as its output, which for timm's widest networks has 1024 channels.
Width = Annotated[int, Field(ge=1, le=1024)]
DecoderWidth = Annotated[int, Field(ge=1, le=2048)]
Side = Annotated[int, Field(ge=1, le=1 << 14)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Layer = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,80}$")]
Shape = tuple[int, int, int]

HEAD_STRIDE = 8
"""Pixels per feature where the backbone's layers in an encoder of residual blocks end."""


@dataclass(frozen=True)
class WireTensor:
    """An output of the device graph: name, dtype, and shape (C, h, w) without the batch."""

    name: str
    dtype: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.name} {shape_text(self.shape)} {self.dtype}"


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape in words, such as ``3×224×224``."""
    return "×".join(map(str, shape)) or "one number"


class Part(BaseModel):
    """A frozen part of a spec; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _half(size: int) -> int:
    return (size + 1) // 2


class _ConvolutionalBottleneck(Part):
    network: Literal["gdn", "residual"] = Field(
        default="gdn",
        description="layers: Entropic Student's, with GDN; or residual blocks behind the first "
        "layers of the backbone, with a latent of stride 16",
    )
    layer: Layer | Literal[""] = Field(
        default="",
        description="layer of stride 8 that the encoder's part of the backbone ends after; of "
        "residual blocks alone",
    )
    stride: Literal[4, 8] = Field(
        default=4, description="pixels per feature of what g_s gives; 8 of residual blocks alone"
    )
    encoder_channels: tuple[Width, Width, Width] = Field(
        description="channels of g_a's convolutions that change them"
    )
    decoder_channels: tuple[DecoderWidth, DecoderWidth, DecoderWidth] = Field(
        description="channels of g_s's convolutions that change them"
    )

    @model_validator(mode="after")
    def _has_its_layer(self) -> Self:
        if (self.network == "residual") != bool(self.layer):
            raise ValueError("residual blocks, and no others, stand behind a layer of the backbone")
        if self.network == "gdn" and self.stride != 4:
            raise ValueError("Entropic Student's g_s gives features of stride 4")
        return self

    @property
    def device(self) -> str:
        """The device's layers, in words."""
        if self.network == "residual":
            channels = _arrows(self.encoder_channels)
            return f"backbone to {self.layer}, residual block, channels {channels}"
        return f"convolutions and GDN, channels {_arrows((3, *self.encoder_channels))}"

    @property
    def edge(self) -> str:
        """The edge's layers before the backbone's, in words."""
        channels = _arrows((self.encoder_channels[-1], *self.decoder_channels))
        layers = "convolutions and inverse GDN" if self.network == "gdn" else "residual blocks"
        return f"{layers}, channels {channels}"

    def latent_shape(self, height: int, width: int) -> Shape:
        """Return the shape of y for an image of that size, pixels."""
        if self.network == "residual":  # features of stride 8, then 2×2 stride 2
            rows, columns = (_half(_half(_half(side))) // 2 for side in (height, width))
            return self.encoder_channels[-1], rows, columns
        # 5×5 stride 2 padding 2, twice, then 2×2 without padding.
        return self.encoder_channels[-1], _half(_half(height)) - 1, _half(_half(width)) - 1


class FactorizedPriorBottleneck(_ConvolutionalBottleneck):
    """Entropic Student's encoder and decoder around a factorized prior."""

    kind: Literal["factorized-prior"] = "factorized-prior"

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        return (WireTensor("symbols", "int32", self.latent_shape(height, width)),)


class VariableRateBottleneck(_ConvolutionalBottleneck):
    """Encoder and decoder around a factorized prior of several levels of rate."""

    kind: Literal["variable-rate"] = "variable-rate"
    betas: tuple[Positive, ...] = Field(
        min_length=2, max_length=256, description="β of each level, rising"
    )
    beta: Positive = Field(description="β, of one of the levels, where nobody chooses another")

    @model_validator(mode="after")
    def _has_levels(self) -> Self:
        if any(after <= before for before, after in itertools.pairwise(self.betas)):
            raise ValueError("the levels' β do not rise")
        if self.beta not in self.betas:
            raise ValueError(f"β {self.beta:g} is of none of the levels")
        return self

    @property
    def level(self) -> int:
        """Number of the level where nobody chooses another."""
        return self.betas.index(self.beta)

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        return (WireTensor("latent", "float32", self.latent_shape(height, width)),)


_FLOAT_HYPERPRIOR = "whether device and edge compute the scales in floats, each with its engine"


def _hyperprior_wire(y: Shape, z: Shape, *, in_floats: bool) -> tuple[WireTensor, ...]:
    hyper_symbols = WireTensor("hyper_symbols", "int32", z)
    if not in_floats:
        return WireTensor("latent", "float32", y), hyper_symbols
    return WireTensor("symbols", "int32", y), hyper_symbols, WireTensor("indexes", "int32", y)


class HyperpriorBottleneck(_ConvolutionalBottleneck):
    """Entropic Student's encoder and decoder around a scale or mean-scale hyperprior."""

    kind: Literal["scale-hyperprior", "mean-scale-hyperprior"]
    hyper_channels: Width = Field(default=16, description="channels of z")
    float_hyperprior: bool = Field(default=False, description=_FLOAT_HYPERPRIOR)

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        latent = self.latent_shape(height, width)
        if self.network == "residual":  # h_a: 3×3 padding 1, then 2×2 stride 2
            rows, columns = (side // 2 for side in latent[1:])
        else:  # h_a: 5×5 stride 2 padding 1, then 5×5 stride 2 padding 2.
            rows, columns = (_half((side - 1) // 2) for side in latent[1:])
        z = (self.hyper_channels, rows, columns)
        return _hyperprior_wire(latent, z, in_floats=self.float_hyperprior)


class ChannelReductionBottleneck(Part):
    """CR + BQ: an encoder of few output channels, quantised to 8 bits after training."""

    edge: ClassVar[str] = "dequantiser, convolutions"
    kind: Literal["channel-reduction"] = "channel-reduction"
    network: Literal["resnet-24", "resnet-20", "densenet", "inception"] = Field(
        description="name of the layers: sc2bench 0.0.3's (resnet-24) or 0.1.1's (the others)"
    )
    channels: Channels
    bits: Literal[8] = 8
    width: Annotated[int, Field(ge=4, le=256, multiple_of=4)] = Field(
        default=64, description="channels of the first convolution; the inner ones in proportion"
    )
    features: Width | None = Field(
        default=None, description="channels of the decoder's output, where not sc2bench's"
    )

    @property
    def device(self) -> str:
        """The device's layers, in words."""
        channels = f"{self.channels} channel{'s' if self.channels > 1 else ''}"
        return f"convolutions ({self.network}) to {channels}, 8-bit quantiser"

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""

        def side(pixels: int) -> int:
            if self.network == "inception":  # 7×7 stride 2, pooling 3×3 stride 2, no padding
                pooled = ((pixels - 7) // 2 + 1 - 3) // 2 + 1
            else:  # the same with padding
                pooled = _half(_half(pixels))
            # Four 2×2 convolutions with padding 1 each add one; one of stride 2 halves.
            return pooled + 4 if self.network == "resnet-24" else pooled // 2 + 1

        return (
            WireTensor("values", "uint8", (self.channels, side(height), side(width))),
            WireTensor("scale", "float32", (1, 1, 1)),
            WireTensor("zero_point", "int32", (1, 1, 1)),
        )


Layout = Literal["map", "tokens", "vector"]
"""Dimensions of a layer's output: (N, C, h, w), (N, L, C) or (N, C)."""


class _LayerCut(Part):
    edge: ClassVar[str] = ""
    channels: Channels = Field(description="channels of the layer's output")
    stride: Literal[0, 1, 2, 4, 8, 16, 32, 64] | None = Field(
        description="pixels per feature of the layer's output; 0 after global pooling, none where "
        "the size is given"
    )
    size: tuple[Side, Side] | None = Field(
        default=None,
        description="height and width of the layer's output, where no stride tells it; number of "
        "tokens and 1 for tokens",
    )
    layout: Layout = Field(
        default="map",
        description="dimensions of the layer's output: tokens (N, L, C) are sent as C planes L×1, "
        "a vector (N, C) as C planes 1×1",
    )

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if (self.stride is None) == (self.size is None):
            raise ValueError("a layer's output has either a stride or a size")
        return self

    def latent_shape(self, height: int, width: int) -> Shape:
        """Return the shape of the features for an image of that size, pixels."""
        if self.size:
            return self.channels, *self.size
        if not self.stride:
            return self.channels, 1, 1
        return self.channels, -(-height // self.stride), -(-width // self.stride)


class LayerBottleneck(_LayerCut):
    """An entropy bottleneck between two layers of the backbone."""

    device: ClassVar[str] = "the backbone's first layers"
    kind: Literal["entropy-bottleneck"] = "entropy-bottleneck"

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        return (WireTensor("symbols", "int32", self.latent_shape(height, width)),)


class FeatureCodecBottleneck(_LayerCut):
    """An image codec over the features between two layers of the backbone."""

    kind: Literal["feature-codec"] = "feature-codec"
    codec: Literal["jpeg", "webp"]
    quality: Annotated[int, Field(ge=0, le=100)]

    @property
    def device(self) -> str:
        """The device's layers, in words."""
        return f"the backbone's first layers; {self.codec} of their output as 8-bit planes"

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        return (WireTensor("features", "float32", self.latent_shape(height, width)),)


class _InputBottleneck(Part):
    """Codes the image itself; the edge normalises and crops it for the backbone.

    The model's input is the image in [0, 1]: its preprocessing has mean 0 and deviation 1.
    """

    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    crop: tuple[Side, Side] | None = Field(
        default=None, description="height and width of the backbone's input, where it is cropped"
    )

    @property
    def edge(self) -> str:
        """The edge's layers before the backbone's, in words."""
        crop = f"centre crop {self.crop[0]}×{self.crop[1]}, " if self.crop else ""
        return f"{crop}normalisation"


HIGHEST_QUALITY = {"bpg": 51, "vtm": 63}
"""Highest quality of codecs whose quality is a quantiser's step; the others' is 100."""


class InputCodecBottleneck(_InputBottleneck):
    """An image codec in front of the whole network."""

    kind: Literal["input-codec"] = "input-codec"
    codec: Literal["jpeg", "webp", "avif", "png", "heic", "bpg", "vtm"]
    quality: Annotated[int, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _has_that_quality(self) -> Self:
        highest = HIGHEST_QUALITY.get(self.codec, 100)
        if self.quality > highest:
            raise ValueError(f"{self.codec} has qualities 0 to {highest}, not {self.quality}")
        if self.codec == "png" and self.quality != highest:
            raise ValueError(f"png loses nothing: its quality is {highest}, not {self.quality}")
        return self

    @property
    def device(self) -> str:
        """The device's layers, in words."""
        return f"{self.codec} of the image"

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        return (WireTensor("pixels", "uint8", (3, height, width)),)


Architecture = Literal["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018"]
_NEURAL_SIZES: dict[Architecture, tuple[int, int]] = {
    "bmshj2018-factorized": (6, 128),
    "bmshj2018-hyperprior": (6, 128),
    "mbt2018-mean": (5, 128),
    "mbt2018": (5, 192),
}
"""First quality with N = 192 and M = 320, and the N below it, where M is 192."""


class NeuralCodecBottleneck(_InputBottleneck):
    """A learned image codec of CompressAI in front of the whole network."""

    kind: Literal["neural-input-codec"] = "neural-input-codec"
    architecture: Architecture
    quality: Annotated[int, Field(ge=1, le=8)]
    metric: Literal["mse", "ms-ssim"] = "mse"
    channels: tuple[Width, Width] | None = Field(
        default=None, description="N and M, where they are not those that CompressAI trained"
    )
    float_hyperprior: bool = Field(default=False, description=_FLOAT_HYPERPRIOR)

    @model_validator(mode="after")
    def _has_a_hyperprior(self) -> Self:
        if self.float_hyperprior and self.architecture == "bmshj2018-factorized":
            raise ValueError(f"{self.architecture} has no hyperprior")
        return self

    @property
    def sizes(self) -> tuple[int, int]:
        """N and M of the architecture at this quality, as CompressAI trained it."""
        if self.channels:
            return self.channels
        first_large, n = _NEURAL_SIZES[self.architecture]
        return (192, 320) if self.quality >= first_large else (n, 192)

    @property
    def device(self) -> str:
        """The device's layers, in words."""
        modules = "g_a" if self.architecture == "bmshj2018-factorized" else "g_a, h_a and h_s"
        return f"{modules} of {self.architecture}, quality {self.quality}, N, M = {self.sizes}"

    def wire(self, height: int, width: int) -> tuple[WireTensor, ...]:
        """Return the wire tensors of an image of that size, pixels."""
        n, m = self.sizes
        # Padded to whole latents of z.
        z = (n, -(-height // 64), -(-width // 64))
        y = (m, 4 * z[1], 4 * z[2])
        if self.architecture == "bmshj2018-factorized":
            return (WireTensor("symbols", "int32", y),)
        if self.architecture == "mbt2018" and self.float_hyperprior:
            params = WireTensor("params", "float32", (2 * m, *y[1:]))
            return *_hyperprior_wire(y, z, in_floats=False), params
        return _hyperprior_wire(y, z, in_floats=self.float_hyperprior)


ConvolutionalBottleneck = FactorizedPriorBottleneck | VariableRateBottleneck | HyperpriorBottleneck
"""Those with an encoder and a decoder of their own, ``g_a`` and ``g_s``."""

AnyBottleneck = Annotated[
    FactorizedPriorBottleneck
    | VariableRateBottleneck
    | HyperpriorBottleneck
    | ChannelReductionBottleneck
    | LayerBottleneck
    | FeatureCodecBottleneck
    | InputCodecBottleneck
    | NeuralCodecBottleneck,
    Field(discriminator="kind"),
]


def _arrows(sizes: tuple[int, ...]) -> str:
    return " → ".join(map(str, sizes))
