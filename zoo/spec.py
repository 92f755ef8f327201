"""What a split model is, as data: the part of a model that is not its weights. Imports no torch."""

import math
import textwrap
from typing import Annotated, Self

from pydantic import Field, model_validator

from splitrun.preprocessing import Preprocessing

from .bottleneck_specs import (
    AnyBottleneck,
    InputCodecBottleneck,
    Layer,
    NeuralCodecBottleneck,
    Part,
    VariableRateBottleneck,
    WireTensor,
    shape_text,
)
from .kinds import Method, Task


class ModelSpec(Part):
    """Name, architecture, input and labels of a split model; it prints as a table."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")
    task: Task
    method: Method
    # timm would look names with a scheme, such as hf-hub:, up on the network.
    backbone: Layer = Field(description="timm's name of the network that is split")
    cut: Layer | None = Field(
        description="the layer of the backbone after which the edge's part begins; none where "
        "the edge has the whole backbone"
    )
    bottleneck: AnyBottleneck
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="weight of the rate in the training loss, if it has one"
    )
    dataset: str
    num_classes: int = Field(ge=1, le=1 << 16)
    preprocessing: Preprocessing
    labels: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        default=(), description="names of the classes, where no library knows the data set's"
    )
    reference: str = Field(default="", description="experiment or configuration of sc2-benchmark")
    base_model: str = Field(
        default="", description="Hub name of the network that training begins from"
    )

    @model_validator(mode="after")
    def _has_as_many_labels_as_classes(self) -> Self:
        if self.labels and len(self.labels) != self.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.num_classes} classes")
        return self

    @model_validator(mode="after")
    def _has_a_latent(self) -> Self:
        if any(min(tensor.shape) < 1 for tensor in self.wire):
            raise ValueError(f"an input of {self.preprocessing.crop} pixels leaves no latent")
        return self

    @model_validator(mode="after")
    def _fits_its_bottleneck(self) -> Self:
        bottleneck, given = self.bottleneck, self.preprocessing
        if not isinstance(bottleneck, InputCodecBottleneck | NeuralCodecBottleneck):
            if self.cut is None:
                raise ValueError(f"a bottleneck of kind {bottleneck.kind} needs a cut")
            return self
        if self.cut is not None:
            raise ValueError(f"a bottleneck of kind {bottleneck.kind} is in front of any cut")
        if any(given.mean) or any(std != 1 for std in given.std):
            raise ValueError("a codec of images takes them with mean 0 and std 1")
        if bottleneck.crop and any(a > b for a, b in zip(bottleneck.crop, given.crop, strict=True)):
            raise ValueError(f"a crop of {bottleneck.crop} out of an input of {given.crop}")
        return self

    def __str__(self) -> str:
        rows = {"name": self.name, **self.summary()}
        width = max(map(len, rows))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())

    def __repr__(self) -> str:
        return f"<ModelSpec\n{textwrap.indent(str(self), '  ')}\n>"

    def summary(self) -> dict[str, str]:
        """Return what the model is, in words: task, method, cut, input, wire tensors, data set."""
        cut = f"after {self.cut}" if self.cut else "in front of it"
        return {
            "task": self.task,
            "method": f"{self.method}, {self.bottleneck.kind} bottleneck, {self.strength}",
            "backbone": f"{self.backbone}, cut {cut}",
            "input": f"{shape_text(self.input_shape)} float32",
            "preprocessing": self.preprocessing.summary(),
            "on the wire": ", ".join(map(str, self.wire)),
            "data set": f"{self.dataset}, {self.num_classes} classes",
        }

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return (3, *self.preprocessing.crop)

    @property
    def wire(self) -> tuple[WireTensor, ...]:
        """What the device graph gives for one image of the input shape."""
        return self.bottleneck.wire(*self.preprocessing.crop)

    @property
    def has_float_hyperprior(self) -> bool:
        """Whether device and edge both compute the scales of y in floats, and must agree."""
        return getattr(self.bottleneck, "float_hyperprior", False)

    def in_floats(self) -> Self:
        """Return the spec of the same model with its hyperprior, if it has one, in floats."""
        if all(tensor.name != "hyper_symbols" for tensor in self.wire):
            return self
        bottleneck = self.bottleneck.model_copy(update={"float_hyperprior": True})
        return self.model_copy(update={"bottleneck": bottleneck})

    def at(self, beta: float | None) -> Self:
        """Return the spec at the level of rate whose β is nearest, where there are levels."""
        bottleneck = self.bottleneck
        if beta is None or not isinstance(bottleneck, VariableRateBottleneck):
            return self
        nearest = min(bottleneck.betas, key=lambda one: abs(math.log(one / beta)))
        changed = bottleneck.model_copy(update={"beta": nearest})
        return self.model_copy(update={"bottleneck": changed})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the main wire tensor at the input shape."""
        return self.wire[0].shape

    @property
    def quality(self) -> int | None:
        """The codec's quality, where the bottleneck is an image codec."""
        return getattr(self.bottleneck, "quality", None)

    @property
    def strength(self) -> str:
        """What sets the rate, in words: β, channels or quality."""
        if self.beta is not None:
            return f"β {self.beta:g}"
        if isinstance(self.bottleneck, VariableRateBottleneck):
            low, *_, high = self.bottleneck.betas
            return f"β {self.bottleneck.beta:g} of {low:g} to {high:g}"
        if self.quality is not None:
            return f"quality {self.quality}"
        channels = getattr(self.bottleneck, "channels", None)
        return f"{channels} ch" if channels else "—"
