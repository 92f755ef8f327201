"""Classification networks of timm, cut at any named layer.

:mod:`.table` says where each network of the paper can be cut; :func:`find_backbone` also looks at
any other network of timm. ``build_*`` and ``load_timm_weights`` import torch.
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

from .table import BACKBONES, Backbone, Stage

if TYPE_CHECKING:
    from .build import build_features, build_head, build_tail, build_whole
    from .cut import cut_points, features, head, tail
    from .derive import any_timm, find_stages
    from .weights import load_timm_weights, timm_weights_name

_HOME = {
    "any_timm": ".derive",
    "build_features": ".build",
    "build_head": ".build",
    "build_tail": ".build",
    "build_whole": ".build",
    "cut_points": ".cut",
    "features": ".cut",
    "find_stages": ".derive",
    "head": ".cut",
    "load_timm_weights": ".weights",
    "tail": ".cut",
    "timm_weights_name": ".weights",
}

__all__ = [
    "BACKBONES",
    "Backbone",
    "Stage",
    "any_timm",
    "build_features",
    "build_head",
    "build_tail",
    "build_whole",
    "cut_points",
    "features",
    "find_backbone",
    "find_stages",
    "head",
    "load_timm_weights",
    "tail",
    "timm_weights_name",
]


def find_backbone(name: str) -> Backbone:
    """Return the entry of a registered backbone, or of any other network of timm.

    Raises:
        UnknownNameError: Neither knows the name; it carries close ones.
        SpecError: The network does not take images of three channels.
    """
    if name in BACKBONES:
        return BACKBONES.get(name)
    from .derive import any_timm

    return any_timm(name)


__getattr__, __dir__ = lazy_names(__name__, _HOME)
