"""Checkpoints of sc2-benchmark, written by sc2bench and torchdistill in their own format."""

import argparse

import numpy as np
import sc2bench_003
import torch
from dense_models import enliven
from torch import nn

from benchmarks.sc2bench_reference import bottleneck_of, build_reference
from splitzoo.zoo.bottlenecks.initialisation import init_scales, init_unit_variance

BESIDE = ("args", "best_value", "lr_scheduler", "optimizer")
"""What torchdistill 1.1.5 writes beside the model."""
_PARTS = ("encoder", "decoder", "g_a", "g_s", "h_a", "h_s")


def lively_reference(spec, seed=0):
    """sc2bench 0.1.1's model of a spec, with weights that leave nothing of it idle."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build_reference(spec)
        bottleneck = bottleneck_of(model, spec)
        for name, part in bottleneck.named_children():
            if isinstance(part, nn.Sequential) and name in _PARTS:
                init_unit_variance(part)
        if spec.method in ("entropic-student", "end-to-end"):
            # Symbols of which not nearly all are 0.
            (bottleneck.g_a if hasattr(bottleneck, "g_a") else bottleneck.encoder)[4].weight *= 4
        if hasattr(bottleneck, "h_s"):
            init_scales(bottleneck.h_s, bottleneck.num_bottleneck_channels)
        for name, tensor in bottleneck.named_parameters():
            if name.endswith("entropy_bottleneck.quantiles"):
                tensor[:, 0, 1].uniform_(-0.45, 0.45)
        if hasattr(model, "backbone"):
            return enliven(model, seed)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.0)
                layer.bias.normal_(0, 0.1)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.num_batches_tracked.fill_(7)
    return model.eval()


def write_checkpoint(model, path):
    """Write a checkpoint as sc2bench 0.1.1's scripts do, after a step of training."""
    from torchdistill.common.main_util import save_ckpt

    some = next(model.parameters())
    optimizer = torch.optim.Adam([some], lr=1e-3)
    some.grad = torch.zeros_like(some)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[5, 8])
    arguments = argparse.Namespace(config="configs/some.yaml", seed=None, world_size=1)
    # pycocotools gives numpy's numbers.
    save_ckpt(model, optimizer, scheduler, np.float64(0.375), arguments, str(path))
    return path


_OLD = """
import argparse
import numpy as np
torchvision.models.detection.faster_rcnn.model_urls = {}
torchvision.models.segmentation.deeplabv3.model_urls = {}
import sc2bench.transforms.misc
from sc2bench.models.backbone import FeatureExtractionBackbone, splittable_resnet
from sc2bench.models.detection.rcnn import BaseRCNN, create_faster_rcnn_fpn
from sc2bench.models.segmentation.deeplabv3 import create_deeplabv3
from torchdistill.common.main_util import save_ckpt

CHANNELS, TASK, PATH = SETTINGS

def transform(kind):
    return [{"type": kind, "params": {"num_bits": 8}}]

torch.manual_seed(0)
whole = TASK == "image-classification"
options = {"replace_stride_with_dilation": [False, True, True]} if "segm" in TASK else {}
model = splittable_resnet(
    {
        "name": "larger_resnet_bottleneck",
        "params": {
            "bottleneck_channel": CHANNELS,
            "bottleneck_idx": 12,
            "output_channel": 256,
            "compressor_transform_params": transform("SimpleQuantizer"),
            "decompressor_transform_params": transform("SimpleDequantizer"),
        },
    },
    skips_avgpool=not whole,
    skips_fc=not whole,
    **options,
)
if TASK == "object-detection":
    model = BaseRCNN(
        create_faster_rcnn_fpn(
            model,
            return_layer_dict={
                "bottleneck_layer": "1", "layer2": "2", "layer3": "3", "layer4": "4"
            },
            in_channels_list=[256, 512, 1024, 2048],
            analyzable_layer_key="bottleneck_layer",
        )
    )
elif TASK == "semantic-segmentation":
    model = create_deeplabv3(
        FeatureExtractionBackbone(
            model, {"layer3": "aux", "layer4": "out"}, [], analyzable_layer_key="bottleneck_layer"
        ),
        uses_aux=True,
    )
for layer in model.modules():
    if isinstance(layer, torch.nn.BatchNorm2d):
        layer.weight.data.uniform_(0.5, 1.0)
        layer.bias.data.normal_(0, 0.1)
        layer.running_mean.normal_(0, 0.1)
        layer.running_var.uniform_(0.5, 1.5)
model.eval()
optimizer = torch.optim.SGD([next(model.parameters())], lr=0.1)
save_ckpt(
    model,
    optimizer,
    torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 10, 15]),
    np.float64(75.5),
    {"models": {"student_model": {"name": "splittable_resnet", "params": {"beta": 0.5}}}},
    argparse.Namespace(config="configs/some.yaml", log=None),
    PATH,
)
with torch.no_grad():
    if TASK == "object-detection":
        answer.update(model.backbone(given["image"]))
    else:
        given = model(given["image"])
        answer.update(given if isinstance(given, dict) else {"out": given})
"""


def write_old_checkpoint(spec, path, exchange, image):
    """Write a checkpoint as sc2bench 0.0.3's scripts do: channel reduction on a ResNet-50.

    Returns:
        What its model gives for the image: logits (``out``, and ``aux`` for segmentation), or the
        levels of the pyramid by its names.
    """
    settings = f"SETTINGS = {(spec.bottleneck.channels, spec.task, str(path))!r}\n"
    return sc2bench_003.run(settings + _OLD, exchange, {"image": image})
