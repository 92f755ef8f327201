"""Formats of ncnn, LiteRT, ExecuTorch and PyTorch: what converters leave out, and foreign files."""

import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from targets_here import needs

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError
from splitzoo import export
from splitzoo.export.formats import tflite
from splitzoo.export.formats.base import Source
from splitzoo.export.formats.executorch_program import ExecuTorchFormat
from splitzoo.export.formats.ncnn_files import NcnnFormat
from splitzoo.export.formats.torch_files import AotInductorFormat, ExportedFormat, TorchScriptFormat
from splitzoo.export.formats.torch_tensorrt import TorchTensorRTFormat


def test_ncnn_runs_both_halves_and_halves_the_weights_in_fp16(bundles) -> None:
    fp32 = open_bundle(bundles("ncnn", edge="ncnn"))
    fp16 = open_bundle(bundles("ncnn", precision="fp16"))
    assert (fp32.tail().graph.engine, fp16.tail().graph.engine) == ("ncnn", "onnxruntime")
    assert fp32.manifest.parity.output_max_relative_error < 1e-5
    sizes = [(one.folder / "device/encoder.bin").stat().st_size for one in (fp16, fp32)]
    assert 0.5 <= sizes[0] / sizes[1] < 0.6


class _Runs(torch.nn.Module):
    def forward(self, *tensors):
        return (torch.unique_consecutive(torch.relu(tensors[0])),)


def test_what_ncnn_has_no_layer_for_is_told(tmp_path) -> None:
    needs("ncnn")
    source = Source(_Runs(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y"])
    with pytest.raises(BundleError, match="no layer for aten::unique_consecutive, "):
        NcnnFormat().write(source, tmp_path / "g.param")


def test_an_output_that_pnnx_drops_is_told(tmp_path) -> None:
    (tmp_path / "g.param").write_text("7767517\n2 2\nInput a 0 1 in0\nReLU b 1 1 in0 out0\n")
    source = Source(_Runs(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y", "z"])
    with pytest.raises(BundleError, match="dropped out1 of g"):
        NcnnFormat()._check_whole(source, tmp_path / "g.param")


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("7767517\n2 2\nInput a 0 1 in0\nMemoryData b 0 1 out0", "depends on its input"),
        ("7767518\n2 2\n", "begins with '7767518'"),
        ("7767517\n2 2\nInput a 0 x in0", "is not what pnnx writes"),
        ("", "is not what pnnx writes"),
    ],
)
def test_what_pnnx_did_not_write_is_refused(text, saying, tmp_path) -> None:
    path = tmp_path / "g.param"
    path.write_text(text)
    with pytest.raises(BundleError, match=saying):
        NcnnFormat().check(path)


def test_ncnn_takes_one_image(tiny_model, tmp_path) -> None:
    needs("ncnn")
    with pytest.raises(BundleError, match="ncnn takes one image at a time"):
        export.split(tiny_model, tmp_path / "b", target="ncnn", dynamic_batch=True)
    assert list(tmp_path.iterdir()) == []


def test_litert_computes_in_int8_on_what_it_saw(bundles, photos) -> None:
    bundle = open_bundle(
        # The limit of one image is for models that were trained; this one is random and small.
        bundles(
            "litert",
            precision="int8",
            calibration=photos[0].parent,
            keep_tables=True,
            accept=True,
        )
    )
    report = bundle.manifest.precision_report
    assert report is not None
    assert 0 < report.flips < 0.2
    assert report.kept_fp32
    assert (bundle.manifest.device.graph.engine, bundle.tail().graph.engine) == (
        "litert",
        "onnxruntime",
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "saying"),
    [
        ({"image": (1, 8, 8, 3)}, ("y",), r"changed the input image of g from \(1, 3, 8, 8\)"),
        ({"image": (1, 3, 8, 8)}, ("z",), "dropped the output y of g"),
    ],
)
def test_what_onnx2tf_turns_or_drops_is_told(monkeypatch, inputs, outputs, saying) -> None:
    found = types.SimpleNamespace(
        inputs={name: {"shape": shape} for name, shape in inputs.items()},
        outputs=dict.fromkeys(outputs),
    )
    monkeypatch.setattr(tflite, "LiteRtSession", lambda path: found)
    source = Source(torch.nn.Identity(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y"])
    with pytest.raises(BundleError, match=saying):
        tflite._check_tensors(source, Path("g.tflite"))


def test_what_is_not_litert_s_is_refused(tmp_path) -> None:
    (tmp_path / "g.tflite").write_bytes(b"nothing at all")
    with pytest.raises(BundleError, match="is not a file of LiteRT"):
        tflite.LiteRtFormat().check(tmp_path / "g.tflite")


def test_what_is_not_executorchs_is_refused(tmp_path) -> None:
    (tmp_path / "g.pte").write_bytes(b"nothing at all")
    with pytest.raises(BundleError, match="is not a program of ExecuTorch"):
        ExecuTorchFormat().check(tmp_path / "g.pte")


@pytest.mark.parametrize(
    ("format", "part"),
    [(TorchScriptFormat(), "code/"), (ExportedFormat(), "models/"), (AotInductorFormat(), "data/")],
)
def test_what_pytorch_did_not_write_is_refused_unread(format, part, tmp_path) -> None:
    path = tmp_path / f"graph{format.suffix}"
    path.write_bytes(b"nothing")
    with pytest.raises(BundleError, match="is not what PyTorch writes"):
        format.check(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("graph/other", "x")
    with pytest.raises(BundleError, match=f"{part}.* is missing"):
        format.check(path)


def test_torch_tensorrt_is_given_graph_and_examples_on_one_device(monkeypatch, tmp_path) -> None:
    """PyTorch's device without memory stands in for the GPU, and a stand-in compiles."""
    given = {}

    def compiled(program, *, arg_inputs, disable_tf32):
        given.update(program=program, inputs=arg_inputs, tf32=not disable_tf32)

    fake = types.SimpleNamespace(
        dynamo=types.SimpleNamespace(compile=compiled),
        save=lambda compiled, path, **_: Path(path).write_bytes(b"engines"),
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for kind in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(kind, "cuda", lambda self: self.to("meta"))
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda self: self)

    class Convolution(torch.nn.Conv2d):
        def forward(self, *tensors):
            return (super().forward(*tensors),)

    source = Source(Convolution(3, 4, 1).eval(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y"])
    TorchTensorRTFormat().write(source, tmp_path / "g.pt2")
    assert (tmp_path / "g.pt2").read_bytes() == b"engines"
    assert given["tf32"] is False
    assert [one.device.type for one in given["inputs"]] == ["meta"]
    assert {one.device.type for one in given["program"].state_dict.values()} == {"meta"}
