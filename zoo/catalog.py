"""The public functions of the zoo: list, build and load models by name, folder or repository."""

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .bottleneck_specs import NeuralCodecBottleneck
from .models import find_spec, registered
from .packaged import packaged, whole_network
from .resolve import ModelSource, is_assembled
from .spec import ModelSpec

if TYPE_CHECKING:
    from .split_model import SplitModel


def list_models(
    pattern: str = "*",
    *,
    task: str | None = None,
    method: str | None = None,
    backbone: str | None = None,
    beta: float | None = None,
    pretrained: bool = False,
) -> list[str]:
    """Return the names of registered models.

    Args:
        pattern: Shell-style pattern, such as ``"*resnet50*"``; a word without wildcards matches
            anywhere. A name of sc2-benchmark matches too.
        task: Task of the models.
        method: Method of the models.
        backbone: Part of the backbone's name.
        beta: Weight β of the rate in the training loss.
        pretrained: Keep only models whose weights lie on this machine; no request is made.
    """
    if not any(character in pattern for character in "*?["):
        pattern = f"*{pattern}*"
    return [
        spec.name
        for spec in registered()
        if (fnmatch.fnmatchcase(spec.name, pattern) or fnmatch.fnmatchcase(spec.reference, pattern))
        and task in (None, spec.task)
        and method in (None, spec.method)
        and (backbone is None or backbone in spec.backbone or backbone in spec.name)
        and beta in (None, spec.beta)
        and (not pretrained or has_weights(spec.name))
    ]


def list_architectures() -> dict[str, list[str]]:
    """Return the registered models that differ in more than β, channels of CR + BQ, or quality.

    Returns:
        The first name of each architecture, with all its names.
    """
    found: dict[str, list[str]] = {}
    firsts: dict[str, str] = {}
    for spec in registered():
        varied = {"quality", "channels"} if spec.method == "channel-reduction" else {"quality"}
        bottleneck = spec.bottleneck.model_dump_json(exclude=varied)
        # A learned codec's layers are wider for the higher qualities.
        sizes = spec.bottleneck.sizes if isinstance(spec.bottleneck, NeuralCodecBottleneck) else ""
        key = f"{spec.task} {spec.backbone} {spec.cut} {bottleneck} {sizes} {spec.input_shape}"
        found.setdefault(firsts.setdefault(key, spec.name), []).append(spec.name)
    return found


def has_weights(name: str) -> bool:
    """Say whether a model's weights lie on this machine; no request is made.

    Published parts lie in the caches of the Hub and of torch.hub.
    """
    from .backbones.weight_packages import is_installed
    from .hub_names import hub_name, may_be_cached, torch_hub

    spec = find_spec(name)
    if spec.name in packaged() or whole_network(spec.name):
        return True
    # Libraries that take seconds to load are asked only where there is something to look at.
    assembled = is_assembled(spec)
    classifies = spec.task == "image-classification"
    if classifies or not assembled:
        repository = spec.base_model if assembled else hub_name(spec.name)
        possible = (assembled and is_installed(spec.backbone)) or may_be_cached(repository)
    else:
        possible = any((torch_hub() / "checkpoints").glob("*"))
    if not possible:
        return False
    if assembled:
        from .pretrained import has_parts

        return has_parts(spec)
    from .hub import is_cached

    return is_cached(spec.name)


def get_spec(
    name_or_repo: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> ModelSpec:
    """Return the spec of a model; the arguments are those of :func:`load`.

    Raises:
        UnknownNameError: No model has that name.
        SpecError: The name is of a family, but its backbone cannot be cut.
        ModelFolderError: The folder holds no readable ``config.json``.
        HubError: The repository cannot be read.
    """
    return ModelSource.of(name_or_repo, revision, cache_dir, token, local_files_only).spec()


def build(spec: ModelSpec | str, *, seed: int = 0) -> "SplitModel":
    """Build a model with seeded random weights, in evaluation mode and with its tables made.

    torch's global random state is left as it was.

    Args:
        spec: What to build; or a name, registered or of a family, such as
            ``"splittable_<timm name>-fp"``.
        seed: Seed for the weights.

    Raises:
        UnknownNameError: No model has that name.
        SpecError: Nothing can be built from this spec.
    """
    from .parts import build

    return build(find_spec(spec) if isinstance(spec, str) else spec, seed=seed)


def load(
    name_or_repo: str | Path,
    *,
    revision: str | None = None,
    pretrained: bool = True,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> "SplitModel":
    """Load a model, in evaluation mode.

    >>> model = load("flowers-splittable_regnetx_002-fp-beta3")

    Where the weights come from: some small models are part of this package; those of other
    registered names are looked for on the Hugging Face Hub, in the namespace ``splitzoo`` or the
    one that the environment variable ``SPLITZOO_HUB_NAMESPACE`` names; input and feature
    compression are put together from the weights of timm, torchvision and CompressAI.

    Args:
        name_or_repo: A registered name or alias; a folder that :func:`save` wrote; or a repository
            on the Hub, ``"org/name"`` or ``"org/name@revision"``.
        revision: Branch, tag or commit of the repository. Published parts have none.
        pretrained: False gives seeded random weights: for graphs and latency, not for predictions.
        seed: Seed for random weights.
        cache_dir: Folder of the Hub's files. Those of torchvision and CompressAI are always where
            torch.hub keeps its own (``TORCH_HOME``).
        token: Token for private repositories; by default the one that ``hf auth login`` stored.
            Published parts need none.
        local_files_only: Make no request.

    Raises:
        UnknownNameError: No model has that name.
        WeightsNotFoundError: No weights can be had.
        SpecError: A revision is asked of a model that is made of published parts.
        HubError: The Hub, or the way to it, failed.
        ModelFolderError: The folder is not a saved model, or was damaged or changed.
    """
    source = ModelSource.of(name_or_repo, revision, cache_dir, token, local_files_only)
    return source.load(seed=None if pretrained else seed)


def fetch(
    name_or_repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return a model's folder, downloaded into the Hub's cache where it is not there yet.

    The arguments are those of :func:`load`.

    Raises:
        UnknownNameError: No model has that name.
        WeightsNotFoundError: The Hub has none for a registered name, or the model is made of
            published parts.
        HubError: The Hub, or the way to it, failed.
    """
    return ModelSource.of(name_or_repo, revision, cache_dir, token, local_files_only).fetch()


def save(
    model: "SplitModel",
    folder: str | Path,
    *,
    half: Literal["none", "edge", "both"] = "none",
    force: bool = False,
) -> Path:
    """Write a model's folder: ``config.json`` and ``model.safetensors``, entropy tables inside.

    A tail that is a whole network's own (``model.tail_of``) is left to that network.

    Args:
        model: Any model.
        folder: Folder to write; without force it must not exist, or be empty.
        half: Parts to store in half the bytes, as float16: the edge's, or both. A model that is
            loaded from there computes in float32 with rounded weights: it is another model.
        force: Replace the model that the folder holds.

    Returns:
        The folder.

    Raises:
        OutputError: The folder is not empty or cannot be written; nothing is left behind.
    """
    from .store import save_folder

    return save_folder(model, Path(folder), half=half, force=force)
