"""Detectors and segmentation networks with weights that leave nothing idle."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)
# Deltas that make a good part of the proposals large enough for coarse levels.
GROWTH = 0.8


@torch.no_grad()
def stir_norms(model, *, most=1.0, spread=0.1):
    """Give batch norms random weights and statistics; return the model in evaluation mode."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, most)
            layer.bias.normal_(0, spread)
            layer.running_mean.normal_(0, spread)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def enliven(model, seed=0):
    """Give batch norms statistics, and heads weights that give many confident predictions."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, spread):
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for layer in model.modules():
        if isinstance(layer, NORMS):
            uniform(layer.weight, 0.5, 1.0)
            normal(layer.bias, 0.1)
            normal(layer.running_mean, 0.1)
            uniform(layer.running_var, 0.5, 1.5)
    if hasattr(model, "rpn"):
        head, predictor = model.rpn.head, model.roi_heads.box_predictor
        width = head.cls_logits.in_channels**-0.5
        normal(head.conv[0][0].weight, width)
        normal(head.cls_logits.weight, 2 * width)
        normal(head.bbox_pred.weight, 0.5 * width)
        head.bbox_pred.bias.view(-1, 4)[:, 2:].fill_(GROWTH)
        normal(predictor.cls_score.weight, 0.5)
        normal(predictor.bbox_pred.weight, 0.5)
    for head in (getattr(model, "classifier", None), getattr(model, "aux_classifier", None)):
        for layer in head.modules() if head is not None else ():
            if isinstance(layer, nn.Conv2d):
                normal(layer.weight, (2 / layer.weight[0].numel()) ** 0.5)
        if head is not None:
            # Classes that no single direction of all features decides on.
            head[-1].weight -= head[-1].weight.mean(dim=1, keepdim=True)
    return model.eval()
