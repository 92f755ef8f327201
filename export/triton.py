"""A model repository of Triton Inference Server, from bundles.

::

    ensemble   NAME ─► NAME-decode ─► NAME-graph ─► NAME-predict
               steps   Python         ONNX Runtime  Python
                                      or OpenVINO
    python     NAME    all of it in the Python backend

Either way clients send ``STREAM`` and get the edge graph's outputs and ``PREDICTION``, as from
``splitrun serve``. https://github.com/triton-inference-server/server
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitrun.bundle import Bundle, open_bundle
from splitrun.errors import BundleError, UsageError
from splitrun.files import new_folder
from splitrun.halves import check_code
from splitrun.manifest import GraphInfo, TensorInfo
from splitrun.parting import write_half
from splitrun.protocol import PREDICTION, STREAM
from splitrun.record import EdgeRecord

Backend = Literal["ensemble", "python"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_VERSION = "1"
# In the name of a tensor between two steps: that of the ensemble's output may be the same.
_DECODED = "decoded."


class _Word(str):
    """A word that is written without quotes."""

    __slots__ = ()


_TEXT = _Word("TYPE_STRING")
_TYPES = {
    "float32": _Word("TYPE_FP32"),
    "int32": _Word("TYPE_INT32"),
    "uint8": _Word("TYPE_UINT8"),
}
# Backend, file of the graph and of its weights, and settings, by engine.
_GRAPH_BACKENDS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "onnxruntime": ("onnxruntime", ("model.onnx",), {}),
    "openvino": ("openvino", ("model.xml", "model.bin"), {}),
    # TensorRT's own files fit one GPU; ONNX Runtime has TensorRT make them where it runs.
    "tensorrt": (
        "onnxruntime",
        ("model.onnx",),
        {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}},
    ),
}


@dataclass(frozen=True)
class TritonOptions:
    """How the models run.

    Attributes:
        backend: ``"ensemble"``: the graph in a backend of its own, between two steps in Python;
            ``"python"``: all of it in the Python backend.
        instances: Instances of the graph.
        decoders: Instances of the steps in Python of an ensemble, each a process.
        gpu: Whether the ensemble's graph runs on GPUs.
        max_batch: Most streams that run at once.
        max_delay_ms: Longest time that a stream waits for others, ms.
        max_queue: Most requests that wait for a model.
        threads: Threads of each instance's engine; 0: it chooses, or one where there are several.
        trust: Whether graphs are taken whatever they hold.
    """

    backend: Backend = "ensemble"
    instances: int = 1
    decoders: int = 1
    gpu: bool = False
    max_batch: int = 8
    max_delay_ms: float = 0
    max_queue: int = 256
    threads: int = 0
    trust: bool = False

    @property
    def engine_threads(self) -> int:
        """Threads of an engine."""
        return self.threads or (1 if self.instances > 1 else 0)


@dataclass(frozen=True)
class TritonModel:
    """One model folder of a repository.

    Attributes:
        name: Name, also of the folder.
        backend: Backend that runs it; ``"ensemble"`` where that is other models.
        batch: Most streams at once; 0 where the graph takes one.
        asked: Whether it is for clients, and no step of another.
    """

    name: str
    backend: str
    batch: int
    asked: bool


def export_triton(
    bundles: Iterable[tuple[str | None, Path]],
    repository: Path,
    options: TritonOptions | None = None,
    *,
    force: bool = False,
) -> list[TritonModel]:
    """Write a model repository, a model for each tail of each bundle.

    Args:
        bundles: Bundles that hold the edge half, each after the name that clients ask for, or None
            for its model's. Of several tails, each name ends with ``-TAIL``.
        repository: Folder to write.
        options: How the models run.
        force: Whether the folder may hold something; models of other names stay.

    Returns:
        The models, those that clients ask first.

    Raises:
        BundleError: A bundle cannot be read, or an ensemble has no backend for its graph.
        OutputError: The repository cannot be written.
        UsageError: Two models have one name, or Triton cannot have a name.
    """
    options = options or TritonOptions()
    opened = []
    for name, folder in bundles:
        bundle = open_bundle(folder, trust=options.trust)
        if not options.trust:
            check_code(bundle)
        opened.append((_checked_name(name or bundle.name), bundle))
    with new_folder(repository, force=force) as temporary:
        found = []
        for name, bundle in opened:
            several = len(bundle.edge.tails) > 1
            for tail in bundle.edge.tails:
                model = _Model(f"{name}-{tail}" if several else name, bundle, tail, options)
                found += model.write(temporary, known={one.name for one in found})
    return sorted(found, key=lambda model: not model.asked)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Triton cannot have a model named {name!r}.", next_step="Give another: NAME=BUNDLE"
        )
    return name


@dataclass(frozen=True)
class _Model:
    """A tail of a bundle, and what is written for it."""

    name: str
    bundle: Bundle
    tail: str
    options: TritonOptions

    def write(self, repository: Path, known: set[str]) -> list[TritonModel]:
        configs = dict(self._configs())
        if taken := known & configs.keys():
            raise UsageError(
                f"Two models have the name {min(taken)}.",
                next_step="Give one another: NAME=BUNDLE",
            )
        warm = self._warm_inputs()
        first = None
        for name, (config, python_class) in configs.items():
            folder = repository / name
            version = folder / _VERSION
            version.mkdir(parents=True)
            if python_class:
                (version / "model.py").write_text(_MODEL_PY.format(python_class), "utf-8")
                first = _write_bundle(self.bundle, version / "bundle", first)
            elif "platform" not in config:
                self._write_graph(version)
            if config.get("platform") != "ensemble":
                inputs = {tensor["name"]: warm[tensor["name"]] for tensor in config["input"]}
                config |= {"model_warmup": _write_warmup(folder, config, inputs)}
            (folder / "config.pbtxt").write_text(text_format(config), "utf-8")
        return [
            TritonModel(
                name,
                config.get("platform") or config["backend"],
                config["max_batch_size"],
                name == self.name,
            )
            for name, (config, _) in configs.items()
        ]

    @property
    def _graph(self) -> GraphInfo:
        return self.bundle.tail(self.tail).graph

    @property
    def _batch(self) -> int:
        """Most streams at once; 0 where a step takes one and is not Python."""
        dynamic = self._graph.inputs[0].shape[0] == -1
        return self.options.max_batch if dynamic or self.options.backend == "python" else 0

    def _configs(self) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
        """Give each model's name, settings, and its class where it is Python."""
        stream, said = self._text(STREAM), self._text(PREDICTION)
        inputs = list(map(self._tensor, self._graph.inputs))
        outputs = list(map(self._tensor, self._graph.outputs))
        options = self.options
        if options.backend == "python":
            whole = self._python([stream], [*outputs, said], options.instances)
            yield self.name, (whole, "Whole")
            return
        steps = {step: f"{self.name}-{step}" for step in ("decode", "graph", "predict")}
        internal = {tensor["name"]: _DECODED + tensor["name"] for tensor in inputs}
        same = {tensor["name"]: tensor["name"] for tensor in outputs}
        ensemble = {
            "platform": "ensemble",
            "max_batch_size": self._batch,
            "input": [stream],
            "output": [*outputs, said],
            "ensemble_scheduling": {
                "step": [
                    _step(steps["decode"], {STREAM: STREAM}, internal),
                    _step(steps["graph"], internal, same),
                    _step(steps["predict"], same, {PREDICTION: PREDICTION}),
                ]
            },
        }
        yield self.name, (ensemble, "")
        decode = self._python([stream], inputs, options.decoders)
        yield steps["decode"], (decode, "Decode")
        yield steps["graph"], (self._graph_config(inputs, outputs), "")
        predict = self._python(outputs, [said], options.decoders)
        yield steps["predict"], (predict, "Predict")

    def _graph_config(self, inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
        options = self.options
        engine = self._graph.engine
        if engine not in _GRAPH_BACKENDS:
            raise BundleError(
                f"Triton has no backend for the edge graph of {self.name}, for {engine}.",
                next_step="Use --backend python, or export it for another engine: --edge "
                "onnxruntime",
            )
        backend, _, optimization = _GRAPH_BACKENDS[engine]
        kind = "KIND_GPU" if options.gpu or engine == "tensorrt" else "KIND_CPU"
        parameters = {}
        if backend == "onnxruntime" and options.engine_threads:
            parameters["intra_op_thread_count"] = str(options.engine_threads)
        return self._config(backend, inputs, outputs, kind, options.instances, parameters) | (
            {"optimization": optimization} if optimization else {}
        )

    def _python(self, inputs: list[Any], outputs: list[Any], instances: int) -> dict[str, Any]:
        parameters = {
            "name": self.name,
            "tail": self.tail,
            "threads": str(self.options.engine_threads),
            "trust": str(self.options.trust).lower(),
        }
        return self._config("python", inputs, outputs, "KIND_CPU", instances, parameters)

    def _config(
        self,
        backend: str,
        inputs: list[Any],
        outputs: list[Any],
        kind: str,
        instances: int,
        parameters: Mapping[str, str],
    ) -> dict[str, Any]:
        options = self.options
        config: dict[str, Any] = {
            "backend": backend,
            "max_batch_size": self._batch,
            "input": inputs,
            "output": outputs,
            "instance_group": [{"count": instances, "kind": _Word(kind)}],
        }
        if self._batch:
            config["dynamic_batching"] = {
                "max_queue_delay_microseconds": round(1000 * options.max_delay_ms),
                "default_queue_policy": {"max_queue_size": options.max_queue},
            }
        config["parameters"] = [
            {"key": key, "value": {"string_value": value}} for key, value in parameters.items()
        ]
        return config

    def _text(self, name: str) -> dict[str, Any]:
        return {"name": name, "data_type": _TEXT, "dims": [1] if self._batch else [1, 1]}

    def _tensor(self, info: TensorInfo) -> dict[str, Any]:
        dims = list(info.shape[1:] if self._batch else info.shape)
        return {"name": info.name, "data_type": _TYPES[info.dtype], "dims": dims}

    def _write_graph(self, version: Path) -> None:
        _, names, _ = _GRAPH_BACKENDS[self._graph.engine]
        for name, file in zip(names, self._graph.files, strict=True):
            shutil.copyfile(self.bundle.checked_path(file), version / name)

    def _warm_inputs(self) -> dict[str, bytes]:
        """Return the recorded input of every step, as Triton reads it from files."""
        record = EdgeRecord.load(self.bundle, self.tail)
        tensors: dict[str, NDArray[Any]] = {**record.inputs, **record.outputs}
        stream = np.uint32(len(record.stream)).tobytes() + record.stream
        return {name: tensor.tobytes() for name, tensor in tensors.items()} | {STREAM: stream}


_MODEL_PY = '''\
"""What Triton's Python backend loads: the code is in the bundle."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "bundle"))

from splitrun.serving.triton import {} as TritonPythonModel  # noqa: E402

__all__ = ["TritonPythonModel"]
'''


def _write_bundle(bundle: Bundle, folder: Path, first: Path | None) -> Path:
    """Write the edge half, of whose files several folders may be links."""
    if first is None:
        folder.mkdir()
        write_half(bundle, "edge", folder)
        return folder
    shutil.copytree(first, folder, copy_function=_link_or_copy)
    return first


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_warmup(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, bytes]) -> Any:
    """Write inputs as files, and return what names them."""
    (folder / "warmup").mkdir()
    for name, content in inputs.items():
        (folder / "warmup" / name).write_bytes(content)
    tensors = [
        {
            "key": tensor["name"],
            "value": {
                "data_type": tensor["data_type"],
                "dims": tensor["dims"],
                "input_data_file": tensor["name"],
            },
        }
        for tensor in config["input"]
    ]
    size = 1 if config["max_batch_size"] else 0
    return [{"name": "recorded", "batch_size": size, "inputs": tensors}]


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return a step of an ensemble: a model, and what its tensors are called outside it."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": key, "value": value} for key, value in inputs.items()],
        "output_map": [{"key": key, "value": value} for key, value in outputs.items()],
    }


def text_format(message: Mapping[str, Any], indent: str = "") -> str:
    """Write a protocol buffer as text: mappings are messages, lists are repeated fields.

    https://protobuf.dev/reference/protobuf/textformat-spec/
    """
    text = ""
    for name, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, Mapping):
                text += f"{indent}{name} {{\n{text_format(value, indent + '  ')}{indent}}}\n"
            else:
                said = value if isinstance(value, _Word) else json.dumps(value)
                text += f"{indent}{name}: {said}\n"
    return text
