"""Write a bundle: both graphs, tables, labels, self-test record, runtime, manifest."""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__
from ..errors import BundleError, DependencyError
from ..files import new_folder, refuse_taken, sha256_file
from ..zoo.calibration.calibrate import calibrate
from ..zoo.coding import save_coder
from ..zoo.labels import labels_of
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from ..zoo.tasks.detection import DetectionTail
from .graphs import BoxesGraph, DeviceGraph, EdgeGraph, HyperGraph
from .manifest import Coding, Graph, Manifest, Parity, Provenance, Tensor
from .parity import check_parity
from .readme import bundle_readme
from .recording import record_run
from .runtime.bundle import MANIFEST_NAME, SCHEMA_VERSION, open_bundle
from .runtime.record import Named, Record
from .runtime.selftest import OUTPUT_TOLERANCE, TIE_MARGIN
from .targets import TARGETS, Target

PARITY_PICTURES = 3
_PACKAGE = Path(__file__).parents[1]
_RUNTIME_SOURCES = (
    "errors.py",
    "files.py",
    "machine.py",
    "registry.py",
    "signals.py",
    "zoo/preprocessing.py",
    "zoo/coding",
    "export/runtime",
)
_ENTRY_POINT = '''"""Entry point of ``python -m splitrun``."""

import sys
from pathlib import Path

from .signals import run_stoppable


def _run() -> int:
    from .export.runtime.cli import main

    return main(bundle=Path(__file__).parents[1])


sys.exit(run_stoppable(_run))
'''
_PACKAGES_OF_CODECS: dict[object, tuple[str, ...]] = {"heic": ("pillow-heif",)}
_VERSIONS = (
    "torch",
    "timm",
    "compressai",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "constriction",
    "numpy",
)


def export_split(
    model: SplitModel,
    folder: str | Path,
    *,
    target: str = "cpu",
    dynamic_batch: bool = False,
    calibration: Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Cut a model at its bottleneck and write a bundle, whole or not at all.

    Args:
        model: In evaluation mode.
        folder: To write; it must not exist, or be empty.
        target: Name of a registered target.
        dynamic_batch: Leave the batch dimension of both graphs open; by default it is 1.
        calibration: Folder of photographs to fit the entropy tables to first, in place; see
            :func:`splitzoo.zoo.calibrate`.
        progress: Called with the name of each step as it begins.

    Returns:
        The manifest, as written.

    Raises:
        UnknownNameError: No such target.
        DependencyError: The target needs a package that is not installed.
        OutputError: The folder is taken or cannot be written.
        ParityError: The graphs do not compute what the model does.
        BundleError: A graph cannot be exported, or not for any number of images.
        CalibrationError: The tables cannot be fitted.
    """
    chosen = TARGETS.get(target)
    if dynamic_batch:
        refuse_one_image(model.spec)
    if reason := chosen.available():
        raise DependencyError(f"The target {target} cannot be exported to: {reason}.")
    folder = Path(folder)
    refuse_taken(folder)
    model = model.eval()
    command = _command(model, target, dynamic_batch, calibration)
    if calibration is not None:
        progress("fitting entropy tables to photographs")
        calibrate(model, calibration, command=command)
    with new_folder(folder) as temporary:
        progress("recording the model in PyTorch")
        record = record_run(model, 0)
        manifest = _write_parts(model, record, temporary, chosen, dynamic_batch, command, progress)
        progress("comparing with PyTorch")
        manifest.parity = check_parity(
            open_bundle(temporary),
            chain([record], (record_run(model, seed) for seed in range(1, PARITY_PICTURES))),
            dynamic_batch=dynamic_batch,
        )
        (temporary / "README.md").write_text(bundle_readme(manifest), encoding="utf-8")
        _write_manifest(manifest, temporary)
    return manifest


def refuse_one_image(spec: ModelSpec) -> None:
    """Refuse graphs for any number of images where the model takes one.

    Raises:
        BundleError: It does.
    """
    if spec.task == "object-detection":
        raise BundleError(
            f"The second stage of {spec.name}, a detector, takes one image.",
            next_step="Leave --dynamic-batch out.",
        )


def _write_parts(
    model: SplitModel,
    record: Record,
    folder: Path,
    target: Target,
    dynamic_batch: bool,
    command: str,
    progress: Callable[[str], None],
) -> Manifest:
    spec = model.spec
    record.save(folder / "selftest.npz")
    codec = model.codec
    save_coder(codec.coder, folder / "tables.npz")
    labels = labels_of(spec)
    (folder / "labels.json").write_text(json.dumps(labels, indent=0) + "\n", encoding="utf-8")
    _write_runtime(folder / "splitrun")
    graphs = {}
    for name, part in _parts(model, record).items():
        progress(f"exporting the {name} graph")
        graphs[name] = _write_graph(part, folder, target, dynamic_batch)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        spec=spec,
        target=target.name,
        precision="fp32",
        graphs=graphs,
        postprocessing=_postprocessing(model),
        coding=Coding(
            kind=codec.coder.kind,
            settings=codec.coder.settings(),
            tables="tables.npz",
            model_id=codec.model_id.hex(),
            shape=codec.shape,
            calibration=model.calibration.record if model.calibration else None,
        ),
        labels="labels.json",
        selftest="selftest.npz",
        requirements=[
            "numpy",
            "pillow>=11.3",
            "constriction>=0.5,<0.6",
            *target.requirements,
            *_PACKAGES_OF_CODECS.get(codec.coder.settings().get("codec"), ()),
        ],
        parity=Parity(tie_margin=TIE_MARGIN, output_tolerance=OUTPUT_TOLERANCE),
        provenance=Provenance(
            source=model.source,
            weights="trained" if model.random_seed is None else "random",
            seed=model.random_seed,
            model_sha256=model.digest().hex(),
            versions={"splitzoo": __version__, **{name: version(name) for name in _VERSIONS}},
            command=command,
        ),
        files={},
    )
    (folder / "requirements.txt").write_text(
        "\n".join(manifest.requirements) + "\n", encoding="utf-8"
    )
    _write_manifest(manifest, folder)
    return manifest


@dataclass(frozen=True)
class _Part:
    """A graph to write: its module, its file without suffix, and examples of what passes."""

    module: nn.Module
    file: str
    inputs: Named
    outputs: Named


def _postprocessing(model: SplitModel) -> dict[str, Any]:
    tail = model.decoder.get_submodule("tail")
    return tail.settings() if isinstance(tail, DetectionTail) else {}


def _parts(model: SplitModel, record: Record) -> dict[str, _Part]:
    parts = {
        "device": _Part(DeviceGraph(model), "device/encoder", {"image": record.image}, record.sent),
        "edge": _Part(EdgeGraph(model), "edge/decoder", record.received, record.outputs),
    }
    if model.coder.hyper_gives:
        hyper_symbols = record.sent["hyper_symbols"]
        given = (one[None] for one in model.hyper(hyper_symbols[0]))
        parts["hyper"] = _Part(
            HyperGraph(model),
            "edge/hyper",
            {"hyper_symbols": hyper_symbols},
            dict(zip(model.coder.hyper_gives, given, strict=True)),
        )
    if record.boxes_inputs:
        levels = {name: value for name, value in record.outputs.items() if value.ndim == 4}
        parts["boxes"] = _Part(
            BoxesGraph(model), "edge/boxes", levels | record.boxes_inputs, record.boxes_outputs
        )
    return parts


def _write_graph(part: _Part, folder: Path, target: Target, dynamic_batch: bool) -> Graph:
    def described(named: Named) -> list[Tensor]:
        shapes = {
            name: [-1, *value.shape[1:]] if dynamic_batch else list(value.shape)
            for name, value in named.items()
        }
        return [
            Tensor(name=name, dtype=str(named[name].dtype), shape=shape)  # pyright: ignore[reportArgumentType]
            for name, shape in shapes.items()
        ]

    file = f"{part.file}{target.suffix}"
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    target.export(
        part.module.eval(),
        [torch.from_numpy(np.ascontiguousarray(value)) for value in part.inputs.values()],
        path,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        dynamic_batch=dynamic_batch,
    )
    return Graph(
        file=file,
        engine=target.engine,
        inputs=described(part.inputs),
        outputs=described(part.outputs),
    )


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    manifest.files = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME
    }
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _write_runtime(folder: Path) -> None:
    """Copy the runtime's sources, each to the place that it has in this package.

    Their relative imports then hold unchanged, and what runs on the board is what was tested here.
    """
    for name in _RUNTIME_SOURCES:
        source = _PACKAGE / name
        for path in sorted(source.glob("*.py")) if source.is_dir() else [source]:
            copy = folder / path.relative_to(_PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    (folder / "__init__.py").write_text(
        '"""The runtime of this bundle: python -m splitrun --help."""\n\n'
        f'__version__ = "{__version__}"\n',
        encoding="utf-8",
    )
    (folder / "__main__.py").write_text(_ENTRY_POINT, encoding="utf-8")


def _command(model: SplitModel, target: str, dynamic_batch: bool, calibration: Path | None) -> str:
    seed = model.random_seed
    words = ["splitzoo", "export", "split", model.source, "--target", target]
    words += ["--dynamic-batch"] if dynamic_batch else []
    # Of another machine's folder, the last name says enough.
    words += [] if calibration is None else ["--calibration", calibration.name]
    words += [] if seed is None else ["--random-weights", "--seed", str(seed)]
    return shlex.join(words)
