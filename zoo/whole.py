"""Whole networks, and models that take their weights from one."""

from collections.abc import Mapping

from torch import Tensor, nn

from splitrun.errors import SpecError

from .spec import ModelSpec
from .split_model import SplitModel

_TABLES = ("_quantized_cdf", "_cdf_length", "_offset", "scale_table")
_COUNTER = "num_batches_tracked"


def recode(whole: SplitModel, model: SplitModel) -> SplitModel:
    """Give a model the weights of a whole network: the same with another codec, or cut.

    Args:
        whole: With an image codec in front of it, such as the teacher of a recipe.
        model: Built from a spec of :func:`splitzoo.zoo.packaged.recoded`.

    Returns:
        The model, in evaluation mode.

    Raises:
        SpecError: The two are not of the same network.
    """
    state = whole.decoder.get_submodule("tail").state_dict()
    parts = [model.decoder.get_submodule("tail")]
    parts += [] if model.spec.cut is None else [model.encoder]
    for part in parts:
        copy_weights(part, state, model.spec.name, whole.spec.name)
    model.random_seed = whole.random_seed
    model.training_record = whole.training_record
    model.origin = f"weights of {whole.spec.name}"
    return model.eval()


def copy_weights(part: nn.Module, state: Mapping[str, Tensor], ours: str, theirs: str) -> None:
    """Load into a part those tensors of a state dict that have its names.

    Args:
        part: Every tensor of it is loaded, but for counters that the state lacks.
        state: May hold more.
        ours: Name of the part's model, for messages.
        theirs: Likewise, of the state's.

    Raises:
        SpecError: A tensor is missing in the state, or of another shape there.
    """
    own = part.state_dict()
    wrong = [
        key
        for key, value in own.items()
        if not key.endswith((*_TABLES, _COUNTER))
        and (key not in state or state[key].shape != value.shape)
    ]
    if wrong:
        raise SpecError(
            f"{ours} cannot take the weights of {theirs}: {len(wrong)} tensors are missing there "
            f"or of another shape, among them {wrong[0]}."
        )
    part.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def whole_spec(spec: ModelSpec) -> bool:
    """Say whether a model is a whole network with a codec of images in front of it."""
    return spec.cut is None and spec.method == "input-compression"
