"""A model of fixed rate from one of variable rate: the gains of one level go into the weights."""

import torch
from torch import Tensor, nn

from splitrun.errors import SpecError

from .bottleneck_specs import FactorizedPriorBottleneck, VariableRateBottleneck
from .bottlenecks.variable_rate import VariableRate
from .parts import build_model, building
from .split_model import SplitModel


def fixed_rate(model: SplitModel, beta: float) -> SplitModel:
    """Return a model that sends the symbols that another sends at one of its levels.

    Its predictions are the other's where a gain and its inverse are reciprocal; those that were
    learned apart leave a shift of the medians to a training that follows.

    Args:
        model: Model of variable rate, in evaluation mode.
        beta: β of one of its levels.

    Raises:
        SpecError: The model is of fixed rate, or none of its levels has that β.
    """
    sizes, bottleneck = model.spec.bottleneck, model.bottleneck
    if not isinstance(sizes, VariableRateBottleneck) or not isinstance(bottleneck, VariableRate):
        raise SpecError(f"{model.spec.name} is of one rate already.")
    if beta not in sizes.betas:
        raise SpecError(
            f"{model.spec.name} has no level of β {beta:g}.",
            next_step=f"Its levels: {', '.join(f'{one:g}' for one in sizes.betas)}",
        )
    fields = sizes.model_dump(exclude={"kind", "betas", "beta"})
    spec = model.spec.model_copy(
        update={
            "name": model.spec.name.replace("-variable", f"-beta{beta:g}"),
            "bottleneck": FactorizedPriorBottleneck.model_validate(fields),
            "beta": beta,
        }
    )
    level = sizes.betas.index(beta)
    with torch.no_grad():
        gain, inverse = (one[level].clone() for one in (bottleneck.gains, bottleneck.inverse_gains))
        state = {
            name: tensor.clone()
            for name, tensor in model.state_dict().items()
            if not name.startswith(("bottleneck.gain", "bottleneck.inverse"))
        }
        _scale_encoder(model.encoder, state, gain)
        path, first = _convolutions("decoder.", model.decoder)[0]
        # Inputs are the first dimension of a transposed convolution's weights, else the second.
        shape = (-1, 1, 1, 1) if isinstance(first, nn.ConvTranspose2d) else (-1, 1, 1)
        state[f"{path}.weight"] *= inverse.reshape(shape)
        density = "bottleneck.entropy_bottleneck."
        state[f"{density}quantiles"] *= gain[:, None, None]
        slopes = nn.functional.softplus(state[f"{density}matrices.0"]) / gain[:, None, None]
        state[f"{density}matrices.0"] = _inverse_softplus(slopes)
    with building(spec):
        fixed = build_model(spec).eval()
        fixed.load_state_dict(fixed.state_dict() | _fitting(state, fixed))
        fixed.update()
    fixed.origin = f"{model.spec.name} at β {beta:g}"
    fixed.tail_of = model.tail_of
    return fixed


def _scale_encoder(encoder: nn.Module, state: dict[str, Tensor], gain: Tensor) -> None:
    last, _ = _convolutions("encoder.", encoder)[-1]
    state[f"{last}.weight"] *= gain[:, None, None, None]
    if f"{last}.bias" in state:
        state[f"{last}.bias"] *= gain


def _convolutions(prefix: str, layers: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the convolutions, transposed ones too, and their paths."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    named = layers.named_modules()
    return [(prefix + name, layer) for name, layer in named if isinstance(layer, kinds)]


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))


def _fitting(state: dict[str, Tensor], model: SplitModel) -> dict[str, Tensor]:
    """Return the tensors that a model has in the same shape: tables are made anew."""
    own = model.state_dict()
    return {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
