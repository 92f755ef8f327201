"""Models put together from published parts: timm's, torchvision's and CompressAI's weights.

Nothing was trained for them: an image codec, or a learned one, stands in front of or inside a
network that knows nothing of it.
"""

import re

from torch import Tensor, nn

from ..errors import WeightsNotFoundError
from .backbones import load_timm_weights
from .bottleneck_specs import NeuralCodecBottleneck
from .conversion.keys import up_to_date
from .hub_errors import hub_calls
from .hub_names import parse_repo
from .spec import ModelSpec
from .split_model import SplitModel

_NEXT = (
    "Try again where there is a network; for graphs and latency, ask for random weights: "
    "--random-weights, or pretrained=False."
)


_COUNT = "num_batches_tracked"


def assemble(model: SplitModel) -> SplitModel:
    """Load published weights into all parts of a model that was built.

    Raises:
        WeightsNotFoundError: A part has no published weights, or they cannot be had.
        HubError: The Hub, or the way to it, failed.
    """
    spec = model.spec
    tail = model.decoder.get_submodule("tail")
    if spec.task == "image-classification":
        for part in [tail] if spec.cut is None else [model.encoder, tail]:
            _load_classifier(part, spec)
    else:
        _load_dense(tail, spec)
    if isinstance(spec.bottleneck, NeuralCodecBottleneck):
        from .bottlenecks.neural_codec import load_compressai_weights

        decoder = model.decoder.get_submodule("g_s.0")
        codec = spec.bottleneck
        parts = (model.encoder, model.coder, decoder)
        load_compressai_weights(parts, codec.architecture, codec.quality, codec.metric)  # pyright: ignore[reportArgumentType]
    model.make_tables()
    model.random_seed = None
    return model.eval()


def _load_classifier(part: nn.Module, spec: ModelSpec) -> None:
    from pathlib import Path

    from huggingface_hub import constants

    repo = parse_repo(spec.base_model)
    with hub_calls(repo, Path(constants.HF_HUB_CACHE)):
        load_timm_weights(part, spec.base_model)


def _load_dense(tail: nn.Module, spec: ModelSpec) -> None:
    """Load torchvision's weights of the whole detector or segmentation network."""
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
    weights = published.get((spec.task, spec.backbone))
    if weights is None:
        raise WeightsNotFoundError(
            spec.name, f"torchvision publishes none for {spec.backbone}", next_step=_NEXT
        )
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise WeightsNotFoundError(
            spec.name, f"{weights.url} cannot be had ({error})", next_step=_NEXT
        ) from error
    load_torchvision(tail, state)


def load_torchvision(tail: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the state dict of torchvision's Faster R-CNN or DeepLabv3 into a tail without a cut.

    Raises:
        WeightsNotFoundError: It has other tensors.
    """
    ours = tail.state_dict()
    # Frozen batch norms count no batches, and no count has a use here.
    renamed = {_name(name): one for name, one in state.items() if not name.endswith(_COUNT)}
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
    # Those of Faster R-CNN are of a time when torchvision spelled some layers otherwise.
    name = re.sub(r"^backbone\.(body|fpn)\.", r"\1.", up_to_date(name))
    return re.sub(r"^backbone\.", "body.", name)
