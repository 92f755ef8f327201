"""Write a bundle: both graphs, tables, labels, self-test record, runtime, manifest."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import splitrun
from splitrun.bundle import open_bundle
from splitrun.coding import save_coder
from splitrun.files import check_free, new_folder, sha256_file
from splitrun.limits import limits_of
from splitrun.machine import versions
from splitrun.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Coding,
    GraphInfo,
    Manifest,
    Parity,
    Provenance,
    TensorInfo,
)
from splitrun.record import Arrays, Record

from .. import __version__
from ..progress import SILENT, Progress
from ..zoo.calibration.calibrate import calibrate, can_be_calibrated
from ..zoo.labels import labels_of
from ..zoo.split_model import SplitModel
from ..zoo.tasks.detection import DetectionTail
from .formats.base import Source
from .graphs import BoxesGraph, DeviceGraph, EdgeGraph, HyperGraph
from .options import KEPT, ExportOptions, Keep
from .parity import check_parity
from .precision.lowering import Lowering
from .precision.report import (
    CalibrationImages,
    check_limits,
    exceeded_limits,
    measure_precision,
    read_images,
)
from .readme import bundle_readme
from .recording import record_run
from .targets import Halves, Target

PARITY_IMAGES = 3
_PACKAGES_OF_CODECS: dict[object, tuple[str, ...]] = {"heic": ("pillow-heif",)}
_VERSIONS = ("torch", "timm", "compressai", "constriction", "numpy")


def split(
    model: SplitModel,
    folder: str | Path,
    *,
    target: str = "cpu",
    precision: str = "fp32",
    edge: str | None = None,
    aot: bool = False,
    dynamic_batch: bool = False,
    calibration: Path | None = None,
    keep_tables: bool = False,
    keep_fp32: Sequence[Keep] = KEPT,
    accept: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Cut a model at its bottleneck and write a bundle, whole or not at all.

    Args:
        model: In evaluation mode.
        folder: To write; it must not exist, or be empty.
        target: Name of a registered target.
        precision: Precision of the device graph.
        edge: Engine of the edge's graphs; by default the target's first.
        aot: Compile both halves ahead of time.
        dynamic_batch: Leave the batch dimension of both graphs open; by default it is 1.
        calibration: Folder of images. The entropy tables are fitted to them first, in place
            (see :func:`splitzoo.zoo.calibrate`), and the ranges of int8 are taken from them.
        keep_tables: Leave the entropy tables as they are.
        keep_fp32: Parts of the device graph that int8 leaves in fp32.
        accept: Take what a precision below fp32 changes, though it be beyond the limits.
        progress: Told of each step.

    Returns:
        The manifest, as written.

    Raises:
        UnknownNameError: No such target, or it has no such precision or edge.
        DependencyError: The target needs a package that is not installed.
        OutputError: The folder is taken or cannot be written.
        ParityError: The graphs do not compute what the model does.
        BundleError: A graph cannot be exported, or not for any number of images, or not in this
            precision.
        CalibrationError: The tables cannot be fitted, or int8 is given no images.
    """
    wanted = ExportOptions(
        target=target,
        precision=precision,
        edge=edge,
        aot=aot,
        dynamic_batch=dynamic_batch,
        calibration=calibration,
        keep_tables=keep_tables,
        keep_fp32=tuple(keep_fp32),
        accept=accept,
    )
    halves = wanted.halves(model.spec)
    wanted.check_possible(model.spec)
    chosen = wanted.chosen_target
    folder = Path(folder)
    check_free(folder)
    model = model.eval()
    command = wanted.command(model)
    images = None
    if calibration is not None:
        progress.step("reading images")
        images = read_images(model, calibration)
        # int8 needs the images, tables or not.
        if not keep_tables and (can_be_calibrated(model) or wanted.precision == "fp32"):
            progress.step("fitting entropy tables to images")
            calibrate(model, calibration, command=command)
    with new_folder(folder) as temporary:
        progress.step("recording the model in PyTorch")
        records = [record_run(model, seed) for seed in range(PARITY_IMAGES)]
        lowered = Lowering(wanted, model.spec.preprocessing, images.fitted if images else ())
        plan = _Plan(chosen, wanted, halves, lowered, command)
        manifest = _write_parts(model, records[0], temporary, plan, progress)
        if wanted.precision != "fp32":
            progress.step(f"comparing {wanted.precision} with fp32")
            manifest = _judge(model, manifest, temporary, plan, images, records)
        progress.step("comparing with PyTorch")
        parity = check_parity(open_bundle(temporary), records, dynamic_batch=dynamic_batch)
        manifest = replace(manifest, parity=parity)
        for name, text in chosen.files.items():
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / "README.md").write_text(bundle_readme(manifest), encoding="utf-8")
        manifest = _write_manifest(manifest, temporary)
        chosen.finish(temporary, progress)
    return manifest


def _judge(
    model: SplitModel,
    manifest: Manifest,
    folder: Path,
    plan: "_Plan",
    images: CalibrationImages | None,
    records: Sequence[Record],
) -> Manifest:
    """Measure what the precision changes, and refuse it or widen the bundle's limits to it."""
    bundle, wanted = open_bundle(folder), plan.wanted
    report = measure_precision(model, bundle, images, plan.lowering.kept, records)
    limits = bundle.limits
    if wanted.accept:
        exceeded = exceeded_limits(report, limits, wanted.precision)
        report = replace(report, accepted=tuple(exceeded))
    else:
        check_limits(report, limits, wanted.precision)
    if report.accepted:
        # On other images and processors it may be somewhat more.
        limits = replace(
            limits,
            changed=min(1.0, max(limits.changed, 2 * report.most_changed)),
            difference=max(limits.difference, 2 * report.largest_difference),
            wire_tolerance=max(limits.wire_tolerance, 2 * report.wire_error),
        )
    parity = replace(manifest.parity, limits=limits)
    return _write_manifest(replace(manifest, precision_report=report, parity=parity), folder)


@dataclass(frozen=True)
class _Plan:
    """What is to be written: the target, what was asked of it, and what that comes to."""

    target: Target
    wanted: ExportOptions
    halves: Halves
    lowering: Lowering
    command: str


def _write_parts(
    model: SplitModel,
    record: Record,
    folder: Path,
    plan: _Plan,
    progress: Progress,
) -> Manifest:
    spec, precision = model.spec, plan.wanted.precision
    record.save(folder / "selftest.npz")
    codec = model.codec
    save_coder(codec.coder, folder / "tables.npz")
    labels = labels_of(spec)
    (folder / "labels.json").write_text(json.dumps(labels, indent=0) + "\n", encoding="utf-8")
    write_runtime(folder / "splitrun")
    graphs = {}
    for name, part in _parts(model, record).items():
        progress.step(f"exporting the {name} graph")
        graphs[name] = _write_graph(name, part, folder, plan)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        spec=spec.model_dump(mode="json"),
        target=plan.target.name,
        precision=precision,
        graphs=graphs,
        postprocessing=_postprocessing(model),
        coding=Coding(
            kind=codec.coder.kind,
            settings=codec.coder.settings(),
            tables="tables.npz",
            model_id=codec.model_id.hex(),
            shape=codec.shape,
            calibration=model.calibration.record.model_dump(mode="json")
            if model.calibration
            else None,
        ),
        labels="labels.json",
        selftest="selftest.npz",
        requirements=(
            "numpy",
            "pillow>=11.3",
            (
                'constriction>=0.5,<0.6; sys_platform == "darwin" or platform_machine == "x86_64" '
                'or platform_machine == "AMD64"'
            ),
            *dict.fromkeys((*plan.halves.device.requirements, *plan.halves.edge.requirements)),
            *_PACKAGES_OF_CODECS.get(codec.coder.settings().get("codec"), ()),
        ),
        parity=Parity(limits=limits_of(precision, quantised=codec.coder.is_quantised)),
        precision_report=None,
        provenance=Provenance(
            source=model.source,
            weights="trained" if model.random_seed is None else "random",
            seed=model.random_seed,
            model_sha256=model.digest().hex(),
            versions={"splitzoo": __version__, **_versions(plan.halves)},
            command=plan.command,
        ),
    )
    (folder / "requirements.txt").write_text(
        "\n".join(manifest.requirements) + "\n", encoding="utf-8"
    )
    return _write_manifest(manifest, folder)


@dataclass(frozen=True)
class _Part:
    """A graph to write: its module, its file without suffix, and examples of what passes."""

    module: nn.Module
    file: str
    inputs: Arrays
    outputs: Arrays


def _postprocessing(model: SplitModel) -> dict[str, Any]:
    tail = model.decoder.get_submodule("tail")
    return tail.settings() if isinstance(tail, DetectionTail) else {}


def _parts(model: SplitModel, record: Record) -> dict[str, _Part]:
    parts = {
        "device": _Part(DeviceGraph(model), "device/encoder", {"image": record.image}, record.wire),
        "edge": _Part(EdgeGraph(model), "edge/decoder", record.edge_inputs, record.outputs),
    }
    if model.bottleneck.hyper_outputs:
        hyper_symbols = record.wire["hyper_symbols"]
        given = (one[None] for one in model.hyper_decode(hyper_symbols[0]))
        parts["hyper"] = _Part(
            HyperGraph(model),
            "edge/hyper",
            {"hyper_symbols": hyper_symbols},
            dict(zip(model.bottleneck.hyper_outputs, given, strict=True)),
        )
    if record.boxes_inputs:
        levels = {name: value for name, value in record.outputs.items() if value.ndim == 4}
        parts["boxes"] = _Part(
            BoxesGraph(model), "edge/boxes", levels | record.boxes_inputs, record.boxes_outputs
        )
    return parts


def _write_graph(name: str, part: _Part, folder: Path, plan: _Plan) -> GraphInfo:
    dynamic_batch, on_device = plan.wanted.dynamic_batch, name == "device"

    def described(arrays: Arrays) -> tuple[TensorInfo, ...]:
        shapes = {
            name: (-1, *value.shape[1:]) if dynamic_batch else value.shape
            for name, value in arrays.items()
        }
        return tuple(
            TensorInfo(name, str(arrays[name].dtype), shape) for name, shape in shapes.items()
        )

    chosen = plan.halves.device if on_device else plan.halves.edge
    path = folder / f"{part.file}{chosen.suffix}"
    path.parent.mkdir(exist_ok=True)
    source = Source(
        module=part.module.eval(),
        examples=[torch.from_numpy(np.ascontiguousarray(one)) for one in part.inputs.values()],
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        dynamic_batch=dynamic_batch,
        lower=plan.lowering.lower if on_device else None,
    )
    weights = chosen.write(source, path)
    return GraphInfo(
        file=path.relative_to(folder).as_posix(),
        weights=None if weights is None else weights.relative_to(folder).as_posix(),
        engine=chosen.engine,
        inputs=described(part.inputs),
        outputs=described(part.outputs),
        threads=plan.target.threads if on_device else 0,
        hint=plan.target.hints.get(plan.wanted.precision, "") if on_device else "",
    )


def _write_manifest(manifest: Manifest, folder: Path) -> Manifest:
    """Write the manifest with the SHA-256 of every other file, and return it."""
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME
    }
    manifest = replace(manifest, files=files)
    manifest.write(folder)
    return manifest


def write_runtime(folder: Path) -> None:
    """Copy the runtime's package: what runs on the board is what was tested here."""
    source = Path(splitrun.__file__).parent
    for path in sorted(source.rglob("*.py")):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _versions(halves: Halves) -> dict[str, str]:
    packages = (*_VERSIONS, *halves.device.packages, *halves.edge.packages)
    return versions(*(name.replace("_", "-") for name in packages))
