"""Weights that come from elsewhere: from published parts, or from a whole network.

Published parts are timm's, torchvision's and CompressAI's. Nothing was trained for such models: an
image codec, or a learned one, stands in front of or inside a network that knows nothing of it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splitrun.errors import SpecError, WeightsNotFoundError

from .backbones.weight_packages import is_installed
from .backbones.weights import load_package_weights, load_timm_weights
from .bottleneck_specs import NeuralCodecBottleneck
from .config import WEIGHTS_NAME
from .conversion.keys import up_to_date
from .hub import cached_file, fetch_file, hub_cache
from .hub_errors import bounded_sockets, hub_calls
from .hub_names import parse_repo
from .spec import ModelSpec
from .split_model import SplitModel

_RANDOM = "For graphs and latency, ask for random weights: --random-weights, or pretrained=False."
_COUNT = "num_batches_tracked"
_MADE = ("_quantized_cdf", "_cdf_length", "_offset", "scale_table")
"""Ends of the names of entropy tables."""


def assemble(
    model: SplitModel, *, cache_dir: str | Path | None = None, local_files_only: bool = False
) -> SplitModel:
    """Load published weights into all parts of a model that was built.

    Args:
        model: Model that :func:`splitzoo.zoo.resolve.is_assembled` is true of.
        cache_dir: Folder of the Hub's files; torchvision's and CompressAI's are torch.hub's.
        local_files_only: Make no request.

    Raises:
        WeightsNotFoundError: A part has no published weights, or they cannot be had.
        HubError: The Hub, or the way to it, failed.
    """
    spec = model.spec
    tail = model.decoder.get_submodule("tail")
    if spec.task == "image-classification":
        for part in [tail] if spec.cut is None else [model.encoder, tail]:
            _load_classifier(part, spec, cache_dir, local_files_only)
    else:
        _load_dense(tail, spec, local_files_only)
    if isinstance(spec.bottleneck, NeuralCodecBottleneck):
        from .bottlenecks.neural_codec import load_compressai_weights

        decoder = model.decoder.get_submodule("g_s.0")
        codec = spec.bottleneck
        if local_files_only:
            _check_available(spec, _codec_url(codec))
        parts = (model.encoder, model.bottleneck, decoder)
        load_compressai_weights(parts, codec.architecture, codec.quality, codec.metric)  # pyright: ignore[reportArgumentType]
    model.update()
    model.random_seed = None
    return model.eval()


def has_parts(spec: ModelSpec) -> bool:
    """Say whether all published parts of a model lie on this machine; no request is made."""
    if spec.task == "image-classification":
        if not is_installed(spec.backbone) and _cached(spec, None) is None:
            return False
    elif not _at_hand(getattr(_dense_weights(spec), "url", None)):
        return False
    codec = spec.bottleneck
    return not isinstance(codec, NeuralCodecBottleneck) or _at_hand(_codec_url(codec))


def _cached(spec: ModelSpec, cache_dir: str | Path | None) -> Path | None:
    """Return the file of timm's weights in the Hub's cache, if it is there."""
    if not spec.base_model:
        return None
    repo = parse_repo(spec.base_model)
    return cached_file(repo.repo_id, WEIGHTS_NAME, repo.revision, hub_cache(cache_dir))


def _at_hand(url: str | None) -> bool:
    return url is not None and _file_of(url).is_file()


def _file_of(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _check_available(spec: ModelSpec, url: str | None) -> None:
    if url is not None and not _at_hand(url):
        raise WeightsNotFoundError(
            spec.name,
            f"local_files_only is set, and {_file_of(url)} is not there",
            next_step=f"Fetch it where there is a network: splitzoo zoo pull {spec.name}",
        )


def _codec_url(codec: NeuralCodecBottleneck) -> str | None:
    from .bottlenecks.neural_codec import model_urls

    return model_urls.get(codec.architecture, {}).get(codec.metric, {}).get(codec.quality)


def _load_classifier(
    part: nn.Module, spec: ModelSpec, cache_dir: str | Path | None, local_files_only: bool
) -> None:
    if is_installed(spec.backbone):
        load_package_weights(part, spec.backbone)
        return
    if not spec.base_model:
        raise WeightsNotFoundError(
            spec.name, f"timm publishes none for {spec.backbone}", next_step=_RANDOM
        )
    repo, cache = parse_repo(spec.base_model), hub_cache(cache_dir)
    # timm would ask for one name after another, and repeat each: a minute without a network.
    file = fetch_file(repo, WEIGHTS_NAME, cache_dir=cache, local_files_only=local_files_only)
    with hub_calls(repo, cache):
        load_timm_weights(part, spec.base_model, file=file, cache_dir=cache)


def _dense_weights(spec: ModelSpec) -> Any:
    """Return torchvision's weights of the whole detector or segmentation network, or None."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
    from torchvision.models.segmentation import (
        DeepLabV3_ResNet50_Weights,
        DeepLabV3_ResNet101_Weights,
    )

    published = {
        ("object-detection", "resnet50"): FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
        ("semantic-segmentation", "resnet50"): (DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1),
        ("semantic-segmentation", "resnet101"): (
            DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1
        ),
    }
    return published.get((spec.task, spec.backbone))


def _load_dense(tail: nn.Module, spec: ModelSpec, local_files_only: bool) -> None:
    weights = _dense_weights(spec)
    if weights is None:
        raise WeightsNotFoundError(
            spec.name, f"torchvision publishes none for {spec.backbone}", next_step=_RANDOM
        )
    if local_files_only:
        _check_available(spec, weights.url)
    try:
        with bounded_sockets():
            state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise WeightsNotFoundError(
            spec.name,
            f"{weights.url} cannot be had ({error})",
            next_step=f"Try again where there is a network. {_RANDOM}",
        ) from error
    load_torchvision(tail, state)


def load_torchvision(tail: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the state dict of torchvision's Faster R-CNN or DeepLabv3 into a tail without a cut.

    Raises:
        WeightsNotFoundError: It has other tensors.
    """
    ours = tail.state_dict()
    # Frozen batch norms count no batches, and no count has a use here.
    renamed = {_name(name): tensor for name, tensor in state.items() if not name.endswith(_COUNT)}
    missing = [name for name in ours if name not in renamed and not name.endswith(_COUNT)]
    unexpected = [name for name in renamed if name not in ours]
    if missing or unexpected:
        raise WeightsNotFoundError(
            type(tail).__name__,
            f"torchvision's have other tensors (missing {missing[:3]}, unexpected "
            f"{unexpected[:3]})",
            next_step="pip install --upgrade torchvision",
        )
    tail.load_state_dict(ours | renamed)


def _name(name: str) -> str:
    """Return our name of a tensor of torchvision's dense networks."""
    # Faster R-CNN's weights are of a time when torchvision spelled some layers otherwise.
    name = re.sub(r"^backbone\.(body|fpn)\.", r"\1.", up_to_date(name))
    return re.sub(r"^backbone\.", "body.", name)


def recode(whole: SplitModel, model: SplitModel) -> SplitModel:
    """Give a model, built from a spec of ``packaged.recoded``, the weights of its whole network.

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
    """Load all of a part's tensors from a state dict, which may hold more but lack counters.

    ``ours`` and ``theirs`` are the names of the part's model and the state's, for messages.

    Raises:
        SpecError: A tensor is missing in the state, or of another shape there.
    """
    own = part.state_dict()
    wrong = [
        key
        for key, value in own.items()
        if not key.endswith((*_MADE, _COUNT))
        and (key not in state or state[key].shape != value.shape)
    ]
    if wrong:
        raise SpecError(
            f"{ours} cannot take the weights of {theirs}: {len(wrong)} tensors are missing there "
            f"or of another shape, among them {wrong[0]}."
        )
    part.load_state_dict({key: state.get(key, value) for key, value in own.items()})
