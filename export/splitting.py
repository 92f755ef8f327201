"""Write a bundle: graphs, tables, labels, recorded run, runtime, manifest and page."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from markupsafe import Markup
from torch import nn

import splitrun
from splitrun.bundle import new_bundle, open_bundle
from splitrun.bundle_layout import HALVES, MANIFEST_NAME, REQUIREMENTS_NAME, Half
from splitrun.coding import CODERS, save_coder
from splitrun.files import check_free, sha256_file
from splitrun.limits import limits_of
from splitrun.machine import versions
from splitrun.manifest import (
    SCHEMA_VERSION,
    Coding,
    DeviceInfo,
    EdgeInfo,
    GraphInfo,
    Manifest,
    Parity,
    Provenance,
    TailInfo,
    TensorInfo,
)
from splitrun.parting import write_half
from splitrun.record import Arrays, Record

from .. import __version__
from ..progress import SILENT, Progress
from ..zoo.calibration.calibrate import calibrate, can_be_calibrated
from ..zoo.datasets import labels_of
from ..zoo.parts import in_floats
from ..zoo.resolve import ModelSource
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from ..zoo.tasks.detection import DetectionTail
from .formats.base import Source
from .graphs import BoxesGraph, DeviceGraph, EdgeGraph, HyperGraph
from .markdown import render
from .options import KEPT, ExportOptions, Keep
from .parity import check_parity
from .precision.edge_report import inputs_of_edge
from .precision.judging import judge_device, judge_edge
from .precision.lowering import Inputs, Lowering
from .precision.report import CalibrationImages, read_images
from .recording import record_run
from .targets import TARGETS, Halves

PARITY_IMAGES = 3
_PAGE = Path(__file__).with_name("readme.md.jinja")
_PACKAGES_OF_CODECS: dict[object, tuple[str, ...]] = {"heic": ("pillow-heif",)}
_TABLES, _LABELS = "tables.npz", "edge/labels.json"
_DEVICE_RECORD, _EDGE_RECORD = "device/selftest.npz", "edge/selftest.npz"
_REQUIREMENTS = (
    "numpy",
    "pillow>=11.3",
    'constriction>=0.5,<0.6; sys_platform == "darwin" or platform_machine == "x86_64" '
    'or platform_machine == "AMD64"',
)
_VERSIONS = ("torch", "timm", "compressai", "constriction", "numpy")


def split(
    model: SplitModel | str | Path,
    folder: str | Path,
    *,
    target: str = "cpu",
    precision: str = "fp32",
    edge: str | None = None,
    edge_precision: str = "fp32",
    aot: bool = False,
    dynamic_batch: bool = False,
    calibration: str | Path | None = None,
    keep_tables: bool = False,
    keep_fp32: Sequence[Keep] = KEPT,
    accept: bool = False,
    float_hyperprior: bool = False,
    half: Half | Literal["both"] = "both",
    force: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Cut a model at its bottleneck and write a bundle, whole or not at all.

    The other arguments are the fields of :class:`~splitzoo.export.ExportOptions`, which describes
    them.

    Args:
        model: Model to split, which is set to evaluation mode; or what
            :func:`splitzoo.zoo.load` takes.
        folder: Folder to write; without force it must be empty or not exist.
        half: Half to write. Both are exported and compared with PyTorch.
        force: Replace the bundle that the folder holds.
        progress: Listener that is told of each step.

    Returns:
        The manifest, as written.

    Raises:
        UnknownNameError: There is no such model or target, or the target has no such precision or
            edge.
        DependencyError: The target needs a package that is not installed.
        OutputError: The folder is taken or cannot be written.
        ParityError: The graphs do not compute what the model does.
        BundleError: A graph cannot be exported, or not for any number of images, or not in this
            precision.
        CalibrationError: The tables cannot be fitted, or int8 is given no images.
    """
    options = ExportOptions(
        target=target,
        precision=precision,
        edge=edge,
        edge_precision=edge_precision,
        aot=aot,
        dynamic_batch=dynamic_batch,
        calibration=None if calibration is None else Path(calibration),
        keep_tables=keep_tables,
        keep_fp32=tuple(keep_fp32),
        accept=accept,
        float_hyperprior=float_hyperprior,
    )
    source = model if isinstance(model, SplitModel) else ModelSource.of(model)
    spec = options.exported(source.spec() if isinstance(source, ModelSource) else source.spec)
    halves = options.halves(spec)
    options.check_possible(spec)
    folder = Path(folder)
    check_free(folder, force=force)
    model = (source.load() if isinstance(source, ModelSource) else source).eval()
    model = in_floats(model) if float_hyperprior else model
    command = options.command(model)
    images = None
    if options.calibration is not None:
        progress.step("reading images")
        images = read_images(model, options.calibration, progress)
        # Below fp32 the images have a use, whether there are tables to fit or not.
        in_fp32 = precision == edge_precision == "fp32"
        if not keep_tables and (can_be_calibrated(model) or in_fp32):
            progress.step("fitting entropy tables to images")
            calibrate(model, options.calibration, command=command)
    chosen = options.chosen_target
    with new_bundle(folder, force=force) as destination:
        # One half is parted from the whole.
        temporary = destination if half == "both" else destination / "whole"
        temporary.mkdir(exist_ok=True)
        progress.step("recording the model in PyTorch")
        records = [record_run(model, seed) for seed in range(PARITY_IMAGES)]
        lowerings = _lowerings(model, options, images)
        _write_files(model, records[0], temporary)
        graphs = {}
        for name, part in _parts(model, records[0]).items():
            progress.step(f"exporting the {name} graph")
            graphs[name] = _write_graph(part, temporary, options, halves, lowerings.get(name))
        manifest = _describe(model, options, halves, graphs, command)
        manifest = _write_manifest(manifest, temporary)
        for name, judge in (("device", judge_device), ("edge", judge_edge)):
            lowering = lowerings[name]
            if lowering.precision == "fp32":
                continue
            progress.step(f"comparing the {name} in {lowering.precision} with fp32")
            bundle = open_bundle(temporary)
            manifest = judge(model, bundle, images, lowering, records, accept=accept)
            manifest = _write_manifest(manifest, temporary)
        progress.step("comparing with PyTorch")
        parity = check_parity(open_bundle(temporary), records, dynamic_batch=dynamic_batch)
        manifest = replace(manifest, parity=parity)
        texts = {REQUIREMENTS_NAME: manifest.requirements_text, "README.md": bundle_page(manifest)}
        for name, text in {**texts, **chosen.files}.items():
            (temporary / name).write_text(text, encoding="utf-8")
        manifest = _write_manifest(manifest, temporary)
        if half != "both":
            manifest = write_half(open_bundle(temporary), half, destination)
            shutil.rmtree(temporary)
        chosen.finish(destination, progress)
    return manifest


def task_name(spec: ModelSpec) -> str:
    """Return the name of a model's tail where nobody gives another: ``classification``."""
    return spec.task.rpartition("-")[2]


def bundle_page(manifest: Manifest) -> str:
    """Return the ``README.md`` of a bundle: how to run it on a board, and what was checked."""
    return render(
        _PAGE,
        {
            **{field.name: getattr(manifest, field.name) for field in fields(manifest)},
            "graphs": manifest.graphs,
            "lossless": CODERS[manifest.coding.kind].lossless,
            "target_words": Markup(TARGETS.get(manifest.target).page(manifest).strip()),
        },
    )


def _lowerings(
    model: SplitModel, options: ExportOptions, images: CalibrationImages | None
) -> dict[str, Lowering]:
    """Return the steps of the graphs that have a precision, by the graphs' names."""
    preprocessing, fitted = model.spec.preprocessing, images.fitted if images else ()

    def of_device() -> Inputs:
        return ({"image": preprocessing.load(path)} for path in fitted)

    def of_edge() -> Inputs:
        return inputs_of_edge(model, ((preprocessing.load(path), None) for path in fitted))

    return {
        "device": Lowering(options.precision, of_device, options.keep_fp32),
        "edge": Lowering(options.edge_precision, of_edge),
    }


def _write_files(model: SplitModel, record: Record, folder: Path) -> None:
    """Write the records, the tables, the labels and the runtime."""
    for half in HALVES:
        (folder / half).mkdir()
    record.device.save(folder / _DEVICE_RECORD)
    record.edge.save(folder / _EDGE_RECORD)
    save_coder(model.codec.coder, folder / _TABLES)
    labels = json.dumps(labels_of(model.spec), indent=0)
    (folder / _LABELS).write_text(labels + "\n", encoding="utf-8")
    write_runtime(folder / "splitrun")


def _describe(
    model: SplitModel,
    options: ExportOptions,
    halves: Halves,
    graphs: dict[str, GraphInfo],
    command: str,
) -> Manifest:
    """Return a bundle's manifest, its files and results still to come."""
    codec, calibration = model.codec, model.calibration
    settings = codec.coder.settings()
    tail = model.decoder.get_submodule("tail")
    packages = (*_VERSIONS, *halves.device.packages, *halves.edge.packages)
    requirements = (*_REQUIREMENTS, *_PACKAGES_OF_CODECS.get(settings.get("codec"), ()))
    return Manifest(
        schema_version=SCHEMA_VERSION,
        halves=HALVES,
        spec=model.spec.model_dump(mode="json"),
        target=options.target,
        precision=options.precision,
        coding=Coding(
            kind=codec.coder.kind,
            settings=settings,
            tables=_TABLES,
            stream_id=codec.stream_id.hex(),
            shape=codec.shape,
            calibration=calibration.record.model_dump(mode="json") if calibration else None,
        ),
        device=DeviceInfo(
            graph=graphs["device"],
            selftest=_DEVICE_RECORD,
            requirements=(*requirements, *halves.device.requirements),
        ),
        edge=EdgeInfo(
            hyper=graphs.get("hyper"),
            tails={
                task_name(model.spec): TailInfo(
                    graph=graphs["edge"],
                    boxes=graphs.get("boxes"),
                    postprocessing=tail.settings() if isinstance(tail, DetectionTail) else {},
                    labels=_LABELS,
                    selftest=_EDGE_RECORD,
                )
            },
            requirements=(*requirements, *halves.edge.requirements),
            precision=options.edge_precision,
        ),
        parity=Parity(
            limits=limits_of(
                options.precision, options.edge_precision, quantised=codec.coder.is_quantised
            )
        ),
        precision_report=None,
        provenance=Provenance(
            source=model.source,
            weights="trained" if model.random_seed is None else "random",
            seed=model.random_seed,
            model_sha256=model.digest().hex(),
            device_sha256=model.device_digest().hex(),
            versions={
                "splitzoo": __version__,
                **(halves.device.environment.versions if halves.device.environment else {}),
                **versions(*(name.replace("_", "-") for name in packages)),
                **codec.coder.versions(),
            },
            command=command,
        ),
    )


@dataclass(frozen=True)
class _Part:
    """A graph to write: its module, its file without suffix, and examples of what passes."""

    module: nn.Module
    file: str
    inputs: Arrays
    outputs: Arrays
    on_device: bool = False


def _parts(model: SplitModel, record: Record) -> dict[str, _Part]:
    device, edge = record.device, record.edge
    image = {"image": device.image}
    parts = {
        "device": _Part(DeviceGraph(model), "device/encoder", image, device.wire, on_device=True),
        "edge": _Part(EdgeGraph(model), "edge/decoder", edge.inputs, edge.outputs),
    }
    if edge.hyper_inputs:
        decoded = (array[None] for array in model.hyper_decode(device.wire["hyper_symbols"][0]))
        parts["hyper"] = _Part(
            HyperGraph(model),
            "edge/hyper",
            edge.hyper_inputs,
            dict(zip(model.bottleneck.hyper_outputs, decoded, strict=True)),
        )
    if edge.boxes_inputs:
        levels = {name: array for name, array in edge.outputs.items() if array.ndim == 4}
        parts["boxes"] = _Part(
            BoxesGraph(model), "edge/boxes", levels | edge.boxes_inputs, edge.boxes_outputs
        )
    return parts


def _write_graph(
    part: _Part, folder: Path, options: ExportOptions, halves: Halves, lowering: Lowering | None
) -> GraphInfo:
    def described(arrays: Arrays) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(
                name,
                str(array.dtype),
                (-1 if options.dynamic_batch else array.shape[0], *array.shape[1:]),
            )
            for name, array in arrays.items()
        )

    target, on_device = options.chosen_target, part.on_device
    format = halves.device if on_device else halves.edge
    path = folder / f"{part.file}{format.suffix}"
    precision = lowering.precision if lowering else "fp32"
    source = Source(
        module=part.module.eval(),
        examples=[torch.from_numpy(np.ascontiguousarray(array)) for array in part.inputs.values()],
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        dynamic_batch=options.dynamic_batch,
        precision=precision,
        lower=lowering.lower if lowering else None,
        on_edge=not on_device,
        choose_int8=lowering.choose_int8 if lowering else None,
    )
    weights = format.write(source, path)
    return GraphInfo(
        file=path.relative_to(folder).as_posix(),
        weights=None if weights is None else weights.relative_to(folder).as_posix(),
        engine=format.engine,
        inputs=described(part.inputs),
        outputs=described(part.outputs),
        threads=target.threads if on_device else 0,
        hint=format.hints.get(precision, ""),
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
    for path in sorted((*source.rglob("*.py"), *source.rglob("*.[ch]"))):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
