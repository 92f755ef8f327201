"""What a split model is, as data: the part of a model that is not its weights."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .preprocessing import Preprocessing

Channels = Annotated[int, Field(ge=1, le=1024)]
Task = Literal["image-classification", "object-detection", "semantic-segmentation"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FactorizedPriorBottleneck(_Frozen):
    """Sizes of the encoder and decoder of Entropic Student with a factorized prior."""

    kind: Literal["factorized-prior"] = "factorized-prior"
    encoder_channels: tuple[Channels, Channels, Channels] = Field(
        description="after each convolution of g_a"
    )
    decoder_channels: tuple[Channels, Channels, Channels] = Field(
        description="after each convolution of g_s"
    )

    @property
    def latent_channels(self) -> int:
        """Channels of the latent y."""
        return self.encoder_channels[-1]

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latent for an input of that size, pixels."""

        def size(pixels: int) -> int:
            # 5×5 stride 2 padding 2, twice, then 2×2 without padding.
            return ((pixels + 1) // 2 + 1) // 2 - 1

        return size(height), size(width)


class TrainingStage(_Frozen):
    """One stage of a training recipe."""

    loss: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    milestones: tuple[int, ...] = Field(description="epochs after which the rate is cut to a tenth")
    frozen: tuple[str, ...] = ()


class ModelSpec(_Frozen):
    """Name, architecture, input, labels and training of one split model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")
    task: Task
    method: str
    # timm would look names with a scheme, such as hf-hub:, up on the network.
    backbone: str = Field(
        pattern=r"^[A-Za-z0-9_.]{1,80}$",
        description="name of the timm or torchvision model that is split",
    )
    bottleneck: FactorizedPriorBottleneck
    beta: float = Field(
        ge=0, allow_inf_nan=False, description="weight of the rate in the training loss"
    )
    dataset: str
    num_classes: int = Field(ge=1, le=1 << 16)
    preprocessing: Preprocessing
    training: tuple[TrainingStage, ...] = ()
    reference: str = Field(default="", description="experiment name in sc2-benchmark")
    base_model: str = Field(
        default="", description="Hub name of the teacher that training begins from"
    )

    @model_validator(mode="after")
    def _has_a_latent(self) -> Self:
        if min(self.latent_shape) < 1:
            raise ValueError(f"an input of {self.preprocessing.crop} pixels leaves no latent")
        return self

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return (3, *self.preprocessing.crop)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latent at the input shape."""
        return (
            self.bottleneck.latent_channels,
            *self.bottleneck.latent_size(*self.preprocessing.crop),
        )
