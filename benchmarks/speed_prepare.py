"""Before anything is timed: the bundles, sc2bench's weights, and what PyTorch computes.

    python benchmarks/speed_prepare.py FOLDER

``FOLDER/photos.json`` names the images and the folder to calibrate with, if there is one. A
bundle that cannot be made is left out, with the reason.
"""

import json
import math
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from speed_report import EdgeEffect, Made, Pixels, PrecisionReport, Prepared
from speed_tasks import KINDS, MODEL, Kind
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from benchmarks.matrix.page import write_images
from splitrun.errors import SplitzooError
from splitrun.image_reading import read_rgb
from splitrun.manifest import Manifest
from splitrun.preprocessing import Preprocessing
from splitzoo import export, zoo
from splitzoo.profile.flops import count_flops
from splitzoo.zoo.split_model import SplitModel

QUANTISED = next(one for one in KINDS if one.precision == "int8")  # an ONNX file
MADE_IMAGES = 16
TABLE_BUFFERS = {"_offset", "_quantized_cdf", "_cdf_length"}  # sc2bench's update() makes them anew
MOST_OF_A_REASON = 160  # characters


def prepare(work: Path) -> Prepared:
    """Write what the sides read: bundles, weights, images, streams and PyTorch's results."""
    wanted = json.loads((work / "photos.json").read_text())
    photos = [Path(one) for one in wanted["images"]]
    model = zoo.load(MODEL, pretrained=False, seed=0)
    weights = {
        sc2bench_key(name): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[2] not in TABLE_BUFFERS
    }
    save_file(weights, work / "weights.safetensors")
    preprocessing = model.spec.preprocessing
    images = np.concatenate([preprocessing.load(photo) for photo in photos])
    np.save(work / "images.npy", images)
    streams, not_zero = write_exact(model, images, work)
    calibration = Path(wanted["calibration"] or make_images(preprocessing, work / "images"))
    made = [make(one, model, calibration, work) for one in KINDS if one.name in wanted["sides"]]
    quantised = work / QUANTISED.folder / "device" / "encoder.onnx"
    return Prepared(
        made=made,
        macs=count_flops(model).macs,
        int8_macs=macs_of(quantised, in_int8=True) if quantised.is_file() else None,
        edge_macs=macs_of(work / KINDS[0].folder / "edge" / "decoder.onnx"),
        pixels=compare_pixels(preprocessing, photos),
        payload_bytes=[len(model.codec.unframe(stream)[0]) for stream in streams],
        symbols_not_zero=not_zero,
    )


def sc2bench_key(name: str) -> str:
    """Return what sc2bench calls a tensor of ours."""
    for ours, theirs in (
        ("encoder.", "bottleneck_layer.encoder."),
        ("bottleneck.", "bottleneck_layer."),
        ("decoder.g_s.", "bottleneck_layer.decoder."),
        ("decoder.tail.", ""),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def write_exact(model: SplitModel, images: np.ndarray, work: Path) -> tuple[list[bytes], int]:
    """Write what the model computes in PyTorch; return its streams, and its symbols but zeros."""
    symbols = np.concatenate([model.wire_tensors(torch.from_numpy(one[None]))[0] for one in images])
    streams = model.compress(torch.from_numpy(images))
    for number, stream in enumerate(streams):
        (work / f"{number}.sz").write_bytes(stream)
    tables = model.codec.coder.arrays()
    tables.pop("precision")
    logits = model.decompress(streams[:1])[0].numpy()
    np.savez(work / "exact.npz", symbols=symbols, logits=logits, **tables)
    return streams, int(np.count_nonzero(symbols[0]))


def make_images(preprocessing: Preprocessing, folder: Path) -> Path:
    """Write made images, to be calibrated with."""
    folder.mkdir()
    # As large as an image is before it is cropped, so that loading scales nothing.
    whole = replace(preprocessing, crop=(preprocessing.resize, preprocessing.resize))
    write_images(whole, folder, MADE_IMAGES)
    return folder


def make(kind: Kind, model: SplitModel, calibration: Path, work: Path) -> Made:
    """Export a bundle, or find out why it cannot be."""
    folder, start = work / kind.folder, time.perf_counter()
    exact = kind.precision == kind.edge_precision == "fp32"
    try:
        manifest = export.split(
            model,
            folder,
            target=kind.target,
            precision=kind.precision,
            edge_precision=kind.edge_precision,
            aot=kind.aot,
            dynamic_batch=kind.open_batch,
            calibration=None if exact else calibration,
            keep_tables=True,
            accept=not exact,
        )
    except SplitzooError as error:
        seconds, reason = time.perf_counter() - start, error.message.partition("\n")[0]
        print(f"not measured: {kind.name}: {reason}", file=sys.stderr, flush=True)
        # Folders of this machine would say nothing elsewhere.
        reason = re.sub(r"/\S*/", "…/", reason)[:MOST_OF_A_REASON]
        return Made(kind.name, seconds, refused=reason)
    files = [folder / one for one in manifest.device.graph.files]
    return Made(
        name=kind.name,
        seconds=time.perf_counter() - start,
        graph_bytes=sum(file.stat().st_size for file in files),
        tables_bytes=(folder / manifest.coding.tables).stat().st_size,
        effect=effect_of(manifest),
        edge_effect=edge_effect_of(manifest),
    )


def effect_of(manifest: Manifest) -> PrecisionReport | None:
    """Return what a precision below fp32 changed."""
    found = manifest.precision_report
    if found is None:
        return None
    return PrecisionReport(
        calibrated=found.calibrated if manifest.precision == "int8" else 0,
        held_out=found.held_out,
        flips=found.flips,
        largest_difference=found.largest_difference,
        rate_inflation=found.rate_inflation,
        kept_fp32=list(found.kept_fp32),
        accepted=list(found.accepted),
    )


def edge_effect_of(manifest: Manifest) -> EdgeEffect | None:
    """Return what a precision of the edge below fp32 changed."""
    (tail,) = manifest.edge.tails.values()
    found = tail.precision_report
    if found is None:
        return None
    return EdgeEffect(
        calibrated=found.calibrated,
        held_out=found.held_out,
        answers_changed=found.answers_changed,
        output_error=found.output_error,
        accepted=list(found.accepted),
    )


def macs_of(path: Path, *, in_int8: bool = False) -> int:
    """Count the MACs of a graph's convolutions: of all in fp32, or of those in int8."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {
        one.name: [side.dim_value for side in one.type.tensor_type.shape.dim]
        for one in (*graph.value_info, *graph.output)
    }
    weights = {one.name: list(one.dims) for one in graph.initializer}
    if in_int8:
        weights = {
            node.output[0]: weights[node.input[0]]
            for node in graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in weights
        }
    return sum(
        math.prod(shapes[node.output[0]]) * math.prod(weights[node.input[1]][1:])
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in weights
    )


def compare_pixels(preprocessing: Preprocessing, photos: list[Path]) -> Pixels:
    """Compare our pixels of images with torchvision's."""
    mode = InterpolationMode[preprocessing.interpolation.upper()]
    resize = transforms.Resize(preprocessing.resize, mode)
    crop = transforms.CenterCrop(preprocessing.crop)
    found = []
    for photo in photos:
        image = read_rgb(photo)
        ours = preprocessing.pixels(image).astype(int)
        found.append(np.abs(ours - np.asarray(crop(resize(image)))))
    levels = np.stack(found)
    return Pixels(levels.size, int(levels.max()), float(levels.mean()))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "prepared.json").write_text(json.dumps(asdict(prepare(place))))
