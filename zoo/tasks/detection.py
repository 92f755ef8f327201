"""Faster R-CNN with a feature pyramid on a backbone that is cut.

Ren et al. 2015, "Faster R-CNN" (https://arxiv.org/abs/1506.01497); Lin et al. 2017, "Feature
Pyramid Networks for Object Detection" (https://arxiv.org/abs/1612.03144).
"""

import math
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from splitrun.errors import SpecError

from ..backbones.build import build_features
from ..backbones.table import DENSE_STRIDES, DetectorSizes, find_backbone
from ..deprecations import quiet_torchscript
from ..split_model import Detections

with quiet_torchscript():
    from timm.layers.norm_act import freeze_batch_norm_2d

Target = dict[str, Tensor]
"""The true objects in one image: ``boxes`` (B, 4) float32, x0, y0, x1, y1 in pixels of the input,
and ``labels`` (B,) int64."""

_LEVEL_NAMES = {4: "p2", 8: "p3", 16: "p4", 32: "p5"}
"""Names of a pyramid's levels by their strides."""
_ANCHOR = 32
"""Side of the finest level's anchors, pixels; those of each further level are twice as large."""
_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_ROI_SIZE, _SAMPLING_RATIO = 7, 2


class DetectionTail(nn.Module):
    """The rest of a backbone, a feature pyramid, and torchvision's RPN and box heads.

    ::

        features ─► body ─► fpn ─► p2 … p5, pool ─► rpn ─► proposals ─► roi_heads ─► boxes
        └──────────────────── dense ───────────────────┘               └─ boxes ─┘

    ``forward`` runs all of it. ``dense`` and ``boxes`` are the two parts whose shapes do not depend
    on the image, so that graphs can be made of them; the steps of torchvision between and after
    them are done by a bundle's runtime, with ``settings()``.

    Inputs have one size and are scaled, padded and normalised already: torchvision's own transform
    is not part of this class. The state dict has the names of torchvision's and sc2bench's Faster
    R-CNN without their ``backbone.``: ``body``, ``fpn``, ``rpn``, ``roi_heads``.

    Batch norms of the backbone are frozen, as in torchvision. sc2bench means to, but its builder
    drops the setting, so that its models were trained with batch norms that were not; in
    evaluation they compute the same, and the counters of batches in their weights are not needed.

    Args:
        backbone: timm's name of the network.
        cut: Layer of a stage's end after which this part begins, and with it the pyramid; None for
            the whole network, which takes images.
        num_classes: Number of classes, with the background, which is class 0.
        input_size: Height and width of the image, pixels, multiples of 32.
        pooled_levels: Number of levels of the pyramid, the finest ones, that boxes are cut out of.
            By default all, as torchvision has it; but of the paper's four, 3 after a cut: sc2bench
            names the levels "1" to "4", torchvision pools from those named "0" to "3", and so its
            models were trained and released without the coarsest one.
        sizes: Sizes of the detector in place of the backbone's own.

    Raises:
        UnknownNameError: timm has no such network, or the network no such layer.
        SpecError: It cannot be cut there, has no features at the strides of the pyramid, or the
            input size is no multiple of 32.
    """

    # torchvision's, whose own attributes have no types.
    rpn: Any
    roi_heads: Any

    def __init__(
        self,
        backbone: str,
        cut: str | None,
        num_classes: int,
        input_size: tuple[int, int],
        *,
        pooled_levels: int | None = None,
        sizes: DetectorSizes | None = None,
    ) -> None:
        super().__init__()
        entry = find_backbone(backbone)
        dense, sizes = entry.dense_stages, sizes or entry.detector
        cuts = {stage.layer: stage.stride for stage in dense[:-1]}
        if cut is not None and cut not in cuts:
            raise SpecError(
                f"A detector on {backbone} cannot be cut after {cut}: its pyramid begins with the "
                "last layer of a stride.",
                next_step=f"Cut it after one of {', '.join(cuts)}.",
            )
        finest = sizes.finest if cut is None else cuts[cut]
        stages = [stage for stage in dense if stage.stride >= finest]
        self._layers = {_LEVEL_NAMES[stage.stride]: stage.layer for stage in stages}
        self._strides = tuple(stage.stride for stage in stages)
        if any(side % DENSE_STRIDES[-1] for side in input_size):
            raise SpecError(
                f"A detector's input of {input_size[0]}×{input_size[1]} pixels is no multiple of "
                f"{DENSE_STRIDES[-1]} on both sides."
            )
        self.input_size = input_size
        self.num_classes = num_classes
        self.body = freeze_batch_norm_2d(build_features(backbone, cut, list(self._layers.values())))
        papers = finest == DetectorSizes.finest
        for module in self.body.modules():
            if papers and cut is None and isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0  # as in torchvision's weights for COCO
        channels = [stage.channels for stage in stages]
        self.fpn = FeaturePyramidNetwork(channels, sizes.channels, LastLevelMaxPool())
        left_out = 1 if papers and cut is not None else 0
        self._pooled = tuple(self._layers)[: pooled_levels or len(stages) - left_out]
        pool = MultiScaleRoIAlign(list(self._pooled), _ROI_SIZE, _SAMPLING_RATIO)
        # It would guess them from the first images, which may be much smaller than the input.
        pool.scales = [1 / stride for stride in self._strides[: len(self._pooled)]]
        low, high = (round(-math.log2(scale)) for scale in (pool.scales[0], pool.scales[-1]))
        pool.map_levels = LevelMapper(low, high, pool.canonical_scale, pool.canonical_level)
        sides = tuple((_ANCHOR << level,) for level in range(len(stages) + 1))
        anchors = AnchorGenerator(sides, (_ASPECT_RATIOS,) * len(sides))
        # All other numbers of the two heads are torchvision's defaults.
        heads = FasterRCNN(
            SimpleNamespace(out_channels=sizes.channels),
            rpn_anchor_generator=anchors,
            rpn_head=RPNHead(sizes.channels, len(_ASPECT_RATIOS)),
            box_roi_pool=pool,
            box_head=TwoMLPHead(sizes.channels * _ROI_SIZE**2, sizes.box_channels),
            box_predictor=FastRCNNPredictor(sizes.box_channels, num_classes),
            box_batch_size_per_image=sizes.sampled,
            rpn_post_nms_top_n_test=sizes.proposals,
        )
        self.rpn = heads.rpn
        self.roi_heads = heads.roi_heads

    @property
    def dense_outputs(self) -> tuple[str, ...]:
        """Names of the tensors that ``dense`` returns, in order."""
        return (*self._pooled, "objectness", "deltas")

    @property
    def boxes_inputs(self) -> tuple[str, ...]:
        """Names of the tensors that ``boxes`` takes, in order."""
        return (*self._pooled, "proposals", "levels")

    @property
    def boxes_outputs(self) -> tuple[str, ...]:
        """Names of the tensors that ``boxes`` returns, in order."""
        return ("class_logits", "box_deltas")

    def forward(
        self, features: Tensor, areas: list[tuple[int, int]] | None = None
    ) -> list[Detections]:
        """Detect objects, in evaluation mode.

        Args:
            features: Features of the cut (N, C, h, w) float32, or images where there is no cut.
            areas: Height and width of the part of each input, from its top left, that is the
                image, to which boxes are clipped; by default the whole input.

        Returns:
            For each image ``boxes`` (D, 4) float32, x0, y0, x1, y1 in pixels of the input,
            ``labels`` (D,) int64 and ``scores`` (D,) float32, best first.
        """
        pyramid, images = self._pyramid(features), self._images(features, areas)
        proposals, _ = self.rpn(images, pyramid)
        found, _ = self.roi_heads(pyramid, proposals, images.image_sizes)
        return found

    def losses(
        self, features: Tensor, targets: list[Target], areas: list[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """Return torchvision's four losses, in training mode; training lowers their sum.

        Args:
            features: Features or images, as ``forward`` takes them.
            targets: True objects of each image.
            areas: Parts of the inputs, as ``forward`` takes them.

        Returns:
            ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier``, ``loss_box_reg``; empty
            in evaluation mode.
        """
        pyramid, images = self._pyramid(features), self._images(features, areas)
        proposals, rpn_losses = self.rpn(images, pyramid, targets)
        _, box_losses = self.roi_heads(pyramid, proposals, images.image_sizes, targets)
        return {**rpn_losses, **box_losses}

    def dense(self, features: Tensor) -> tuple[Tensor, ...]:
        """Compute the first graph: all that depends on the features alone.

        Returns:
            The tensors of ``dense_outputs``: the levels of the pyramid that boxes are cut out of,
            each (N, C, h, w); objectness (N, anchors), logits; deltas (N, anchors, 4). Anchors go
            level by level, in a level row by row, at each place ratio by ratio. All float32.
        """
        pyramid = self._pyramid(features)
        objectness, deltas = concat_box_prediction_layers(*self.rpn.head(list(pyramid.values())))
        images = features.shape[0]
        levels = (pyramid[name] for name in self._pooled)
        return *levels, objectness.reshape(images, -1), deltas.reshape(images, -1, 4)

    def boxes(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the second graph: classify and refine the proposals of one image.

        Args:
            tensors: Tensors of ``boxes_inputs``: levels of the pyramid, each (1, C, h, w); the
                proposals (P, 4) float32, pixels of the input; the level (P,) int32 that each is cut
                out of, 0 for the finest.

        Returns:
            Class logits (P, classes) and box deltas (P, 4 · classes), float32.
        """
        *levels, proposals, level_of_box = tensors
        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
        pooled = torch.zeros(())
        # Each box is cut out of every level: four times the work of this step, for a graph in
        # which every tensor has one shape.
        for number, (level, stride) in enumerate(zip(levels, self._strides, strict=False)):
            cut_out = roi_align(level, rois, _ROI_SIZE, 1 / stride, _SAMPLING_RATIO)
            here = (level_of_box == number)[:, None, None, None]
            pooled = torch.where(here, cut_out, pooled) if number else cut_out
        return self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))

    def settings(self) -> dict[str, Any]:
        """Return the numbers of these heads that the runtime's ``DetectionSettings`` holds."""
        height, width = self.input_size
        grids = [(height // stride, width // stride) for stride in self._strides]
        # The level after the last one is every second pixel of it.
        grids.append((math.ceil(grids[-1][0] / 2), math.ceil(grids[-1][1] / 2)))
        rpn, heads = self.rpn, self.roi_heads
        return {
            "canvas": (height, width),
            "grids": tuple(grids),
            "pooled_levels": len(self._pooled),
            "num_classes": self.num_classes,
            "anchor_sizes": tuple(size for (size,) in rpn.anchor_generator.sizes),
            "aspect_ratios": tuple(rpn.anchor_generator.aspect_ratios[0]),
            "level_candidates": rpn._pre_nms_top_n["testing"],
            "proposals": rpn._post_nms_top_n["testing"],
            "proposal_score": rpn.score_thresh,
            "proposal_overlap": rpn.nms_thresh,
            "delta_weights": tuple(heads.box_coder.weights),
            "score": heads.score_thresh,
            "overlap": heads.nms_thresh,
            "detections": heads.detections_per_img,
            "level_side": heads.box_roi_pool.canonical_scale,
        }

    def _pyramid(self, features: Tensor) -> OrderedDict[str, Tensor]:
        given = self.body(features)
        return self.fpn(OrderedDict((name, given[at]) for name, at in self._layers.items()))

    def _images(self, features: Tensor, areas: list[tuple[int, int]] | None) -> ImageList:
        # torchvision looks at the shape of the images alone.
        images = features.new_empty(()).expand(len(features), 3, *self.input_size)
        return ImageList(images, areas or [self.input_size] * len(features))
