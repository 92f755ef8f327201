"""Look up, build, load and save models by name, folder or Hub repository."""

import contextlib
import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.errors import SpecError, UnknownNameError, WeightsNotFoundError

from .bottleneck_specs import NeuralCodecBottleneck
from .models import find_spec, registered
from .packaged import packaged, packaged_folder, whole_network
from .source import Source
from .spec import ModelSpec

if TYPE_CHECKING:
    from .split_model import SplitModel

DEFAULT_MODEL = "flowers-splittable_regnetx_002-fp-beta3"
"""What the commands take when no model is named."""


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
        pattern: Shell-style, such as ``"*resnet50*"``; a word without wildcards matches anywhere.
            A name of sc2-benchmark matches too.
        task: Keep the models of this task.
        method: Keep the models of this method.
        backbone: Keep the models of backbones with this in their name.
        beta: Keep the models of this β.
        pretrained: Keep the models whose weights are at hand, without a request.
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
    """Return the registered models that differ in more than β, channels of CR+BQ, or quality.

    Returns:
        The first name of each architecture, with all names of it.
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

    Those of models made of published parts lie in the caches of the Hub and of torch.hub.
    """
    from .hub import is_cached

    spec = find_spec(name)
    if spec.name in packaged() or whole_network(spec.name):
        return True
    if is_assembled(spec):
        from .pretrained import has_parts

        return has_parts(spec)
    return is_cached(spec.name)


def get_spec(
    name_or_repo: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> ModelSpec:
    """Return the spec of a name, of a saved model's folder, or of a repository on the Hub.

    Args:
        name_or_repo: See :func:`load`; so for the others.
        revision: Of the repository; a name's spec is part of this package.
        cache_dir: Of the Hub's files.
        token: For private repositories.
        local_files_only: Make no request.

    Raises:
        UnknownNameError: No model has that name.
        SpecError: The name is of a family, but its backbone cannot be cut.
        ModelFolderError: The folder holds no readable ``config.json``.
        HubError: The repository cannot be read.
    """
    source = Source.of(name_or_repo, revision)
    if source.name is not None:
        return find_spec(source.name)
    from .config import read_config

    if source.folder is not None:
        return read_config(source.folder).spec
    from .hub import fetch_config, parse_repo

    folder = fetch_config(
        parse_repo(source.repository or ""),
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )
    return read_config(folder).spec


def build(spec: ModelSpec | str, *, seed: int = 0) -> "SplitModel":
    """Build a model with seeded random weights, in evaluation mode and with its tables made.

    torch's global random state is left as it was.

    Args:
        spec: What to build, or a name: registered, or of a family, such as
            ``"splittable_<timm name>-fp"``.
        seed: Of the weights.

    Raises:
        UnknownNameError: No model has that name.
        SpecError: Nothing can be built from this spec.
    """
    import torch

    from .parts import build_model, check_fit

    spec = find_spec(spec) if isinstance(spec, str) else spec
    with building(spec), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_model(spec).eval()
        check_fit(model)
        model.update()
    model.random_seed = seed
    return model


@contextlib.contextmanager
def building(spec: ModelSpec) -> Iterator[None]:
    """Map what torch, timm and CompressAI raise at specs that make no sense to SpecError."""
    try:
        yield
    except UnknownNameError as error:
        raise SpecError(
            f"{spec.name} cannot be built: {error.message}", next_step=error.next_step
        ) from error
    except (RuntimeError, ValueError, AttributeError, TypeError, OSError) as error:
        raise SpecError(f"{spec.name} cannot be built: {error}") from error


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

    Args:
        name_or_repo: A registered name or alias; a folder that :func:`save` wrote; or a repository
            on the Hugging Face Hub, ``"org/name"`` or ``"org/name@revision"``. The weights of
            registered names are looked for in the namespace ``splitzoo``, or the one that the
            environment variable ``SPLITZOO_HUB_NAMESPACE`` names, but for those that this package
            carries; those of models that are not
            trained as a whole (input and feature compression) come from timm, torchvision and
            CompressAI.
        revision: Branch, tag or commit of the repository. Published parts have none.
        pretrained: False gives seeded random weights: for graphs and latency, not for answers.
        seed: Of the random weights.
        cache_dir: Of the Hub's files. Those of torchvision and CompressAI are always where
            torch.hub keeps its own (``TORCH_HOME``).
        token: For private repositories; by default the one that ``hf auth login`` stored.
            Published parts need none.
        local_files_only: Make no request.

    Raises:
        UnknownNameError: No model has that name.
        WeightsNotFoundError: No weights can be had.
        SpecError: A revision is asked of a model that is made of published parts.
        HubError: The Hub, or the way to it, failed.
        ModelFolderError: The folder is not a saved model, or was damaged or changed.
    """
    if not pretrained:
        spec = get_spec(
            name_or_repo,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        model = build(spec, seed=seed)
        model.source = str(name_or_repo)
        return model
    source = Source.of(name_or_repo, revision)
    spec = find_spec(source.name) if source.name is not None else None
    network = whole_network(source.name) if source.name is not None else None
    if spec is not None and network is not None:
        from .whole import recode

        model = recode(load(network), build(spec))
    elif spec is not None and is_assembled(spec) and packaged_folder(spec.name) is None:
        from .pretrained import assemble

        if revision is not None:
            raise SpecError(
                f"{spec.name} has no revisions: it is made of published parts.",
                next_step="Leave the revision out.",
            )
        model = assemble(build(spec), cache_dir=cache_dir, local_files_only=local_files_only)
    else:
        from .store import load_folder

        folder = source.folder or fetch(
            spec.name if spec else source.repository or "",
            revision=revision if spec else None,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        model = load_folder(folder, build)
    model.source = str(name_or_repo)
    return model


def fetch(
    name_or_repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch the folder of a model from the Hub into the cache, or find it there.

    Args:
        name_or_repo: A registered name, or ``"org/name[@revision]"``.
        revision: See :func:`load`; so for the others.
        cache_dir: Of the Hub's files.
        token: For private repositories.
        local_files_only: Make no request.

    Raises:
        UnknownNameError: No model has that name.
        WeightsNotFoundError: The Hub has none for a registered name.
        HubError: The Hub, or the way to it, failed.
    """
    from .hub import fetch_model, hub_name, parse_repo

    source = Source.of(name_or_repo, revision)
    text = source.repository
    if source.name is not None:
        spec = find_spec(source.name)
        folder = packaged_folder(spec.name)
        if folder is not None and revision is None:
            return folder
        if is_assembled(spec):
            raise WeightsNotFoundError(
                spec.name,
                "it is made of published parts, and no repository holds it",
                next_step=f"splitzoo zoo pull {spec.name} fetches the parts; zoo.load does too.",
            )
        text = hub_name(spec.name) + (f"@{revision}" if revision else "")
    return fetch_model(
        parse_repo(text or name_or_repo),
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )


def is_assembled(spec: ModelSpec) -> bool:
    """Say whether a model is put together from published parts, none of which was trained for it.

    So are input and feature compression: their backbones come from timm and torchvision, their
    learned codecs from CompressAI.
    """
    return spec.method in ("input-compression", "feature-compression")


def save(model: "SplitModel", folder: str | Path, *, half_edge: bool = False) -> Path:
    """Write a model's folder: ``config.json`` and ``model.safetensors``, entropy tables inside.

    Args:
        model: Of any kind.
        folder: To write; it must not exist, or be empty.
        half_edge: Store the edge's part in half the bytes, as float16. A model that is loaded from
            there computes in float32 with rounded weights, so its id is another.

    Returns:
        The folder.

    Raises:
        OutputError: The folder is not empty or cannot be written; nothing is left behind.
    """
    from .store import save_folder

    return save_folder(model, Path(folder), half_edge=half_edge)
