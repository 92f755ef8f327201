"""Bundles whose parts are not what they claim: graphs, tables, labels, record, code."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from splitrun.bundle import Bundle, open_bundle
from splitrun.cli import main
from splitrun.coding import FactorizedCoder, FactorizedTables, load_coder, save_coder
from splitrun.errors import BitstreamError, BundleError, ParityError, SplitzooError
from splitrun.files import sha256_file
from splitrun.halves import Device, Edge
from splitrun.record import DeviceRecord
from splitrun.selftest import run_selftest
from splitzoo import export

ABSURD = 65536


def hashed(folder: Path) -> Path:
    """Let the manifest agree with the files, as a hostile bundle's would."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["files"] = {name: sha256_file(folder / name) for name in content["files"]}
    path.write_text(json.dumps(content))
    return folder


# Parts whose contents are not what they should be


def labels_of(bundle: Bundle) -> list[str]:
    return bundle.labels(bundle.tail())


def ran(folder: Path, photo: Path, tmp_path: Path) -> None:
    """Use every part as the board does."""
    bundle = open_bundle(folder)
    run_selftest(bundle)
    assert len(labels_of(bundle)) == 10
    main(["--bundle", str(folder), "encode", str(photo), "-o", str(tmp_path / "x.sz")])


@pytest.mark.parametrize("name", ["device/encoder.onnx", "edge/decoder.onnx"])
def test_a_graph_that_is_none_is_named(damaged, photo, tmp_path, name) -> None:
    whole = (damaged / name).read_bytes()
    for content in (b"", b"no graph", whole[: len(whole) // 2]):
        (damaged / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name} is not run: "):
            ran(hashed(damaged), photo, tmp_path)
        with pytest.raises(BundleError, match=f"ONNX Runtime cannot load .*{name}"):
            run_selftest(open_bundle(damaged, trust=True))


def test_the_halves_swapped_are_refused(damaged, photo, tmp_path) -> None:
    shutil.copyfile(damaged / "edge/decoder.onnx", damaged / "device/encoder.onnx")
    with pytest.raises(BundleError, match="ONNX Runtime failed"):
        ran(hashed(damaged), photo, tmp_path)


def test_tables_of_another_channel_count_or_none_are_refused(damaged) -> None:
    tables = load_coder("factorized", {}, damaged / "tables.npz").tables
    for channels in (1, 5):
        rows = np.arange(channels) % tables.channels
        others = FactorizedTables(
            tables.cdf[rows], tables.length[rows], tables.offset[rows], tables.precision
        )
        save_coder(FactorizedCoder(others), damaged / "tables.npz")
        with pytest.raises(BundleError, match=f"The tables have {channels} channels, the latent 4"):
            open_bundle(hashed(damaged)).codec()
    (damaged / "tables.npz").write_bytes(b"no tables")
    with pytest.raises(BundleError, match=r"Cannot read entropy tables from .*tables\.npz"):
        open_bundle(hashed(damaged)).codec()


def test_labels_that_are_no_list_of_words_are_refused(damaged, photo, capsys, tmp_path) -> None:
    unreadable = (b"", b"\xff", b"[" * 100_000)
    steering = json.dumps(["\x1b[2J"] * 10).encode()
    for content in (*unreadable, b"{}", b"[1, 2]", b'"cat"', b"null", steering):
        (damaged / "edge/labels.json").write_bytes(content)
        said = "Cannot read the bundle's labels" if content in unreadable else "not a list of words"
        with pytest.raises(BundleError, match=said):
            labels_of(open_bundle(hashed(damaged)))
    (damaged / "edge/labels.json").write_text('["one", "two"]')
    hashed(damaged)
    path = tmp_path / "photo.sz"
    assert main(["--bundle", str(damaged), "encode", str(photo), "-o", str(path)]) == 0
    assert main(["--bundle", str(damaged), "decode", str(path)]) == 1
    assert "error: The bundle has 2 labels for 10 classes." in capsys.readouterr().err


def test_an_absurd_latent_is_refused_without_its_memory(damaged, photo, tmp_path) -> None:
    path = damaged / "manifest.json"
    content = json.loads(path.read_text())
    content["coding"]["shape"] = [ABSURD, ABSURD]
    content["device"]["graph"]["outputs"][0]["shape"] = [1, 4, ABSURD, ABSURD]
    tail = content["edge"]["tails"]["classification"]
    tail["graph"]["inputs"][0]["shape"] = [1, 4, ABSURD, ABSURD]
    path.write_text(json.dumps(content))
    bundle = open_bundle(damaged)
    with pytest.raises(BundleError, match="The graph gave symbols as int32"):
        Device(bundle).encode(bundle.preprocessing.load(photo))
    stream = tmp_path / "x.sz"
    stream.write_bytes(
        b"SZ\x01\x00" + bytes.fromhex(bundle.manifest.coding.stream_id) + b"\x00" * 4
    )
    with pytest.raises(BitstreamError):
        Edge(bundle).decode(stream.read_bytes())
    with pytest.raises(SplitzooError):
        run_selftest(bundle)


# The self-test record

DEVICE, EDGE = "device/selftest.npz", "edge/selftest.npz"
ARRAYS = {
    DEVICE: ("image", "wire.symbols", "ties.symbols", "stream"),
    EDGE: ("inputs.symbols", "outputs.logits", "stream"),
}
RECORDS = pytest.mark.parametrize("name", [DEVICE, EDGE])


@pytest.fixture
def record(damaged):
    """Rewrite one of the copy's self-test records with some arrays replaced."""

    def rewrite(name: str, changes: dict[str, np.ndarray]) -> Path:
        with np.load(damaged / name) as opened:
            arrays = dict(opened)
        np.savez(damaged / name, **arrays | changes)
        return damaged

    return rewrite


@RECORDS
def test_a_pickled_object_in_the_record_is_not_loaded(record, tmp_path, name) -> None:
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    damaged = record(name, {"stream": np.array([Payload()], dtype=object)})
    with pytest.raises(BundleError, match=r"Cannot read the self-test record .*selftest\.npz"):
        run_selftest(open_bundle(damaged))
    assert not (tmp_path / "executed").exists()


@RECORDS
def test_a_record_that_unpacks_to_too_much_is_refused(damaged, name) -> None:
    with zipfile.ZipFile(damaged / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for _ in range(9):
            member = f"{len(archive.namelist())}.npy"
            with archive.open(member, "w") as entry:
                for _ in range(64):
                    entry.write(bytes(1 << 20))
    assert (damaged / name).stat().st_size < 1 << 20
    with pytest.raises(BundleError, match=r"unpacks to more than \d+ MiB"):
        run_selftest(open_bundle(damaged))


@RECORDS
def test_a_record_that_claims_an_absurd_shape_is_refused(damaged, name) -> None:
    for shape in ((1 << 45,), (1 << 62,), (1 << 70,), (-1,)):
        header = io.BytesIO()
        described = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        with zipfile.ZipFile(damaged / name, "w") as archive:
            for array in ARRAYS[name]:
                archive.writestr(f"{array}.npy", header.getvalue())
        with pytest.raises(BundleError, match="Cannot read the self-test record"):
            run_selftest(open_bundle(damaged))


LATENT = (1, 4, 55, 55)


def test_a_record_of_other_shapes_and_types_is_refused(record) -> None:
    for name, array, value in (
        (DEVICE, "wire.symbols", np.int32(3)),
        (DEVICE, "wire.symbols", np.zeros(LATENT, np.float32)),
        (DEVICE, "wire.symbols", np.zeros((2, *LATENT[1:]), np.int32)),
        (DEVICE, "wire.symbols", np.full(LATENT, "x")),
        (EDGE, "inputs.symbols", np.zeros((1, 4, 55, 54), np.int32)),
        (EDGE, "inputs.symbols", np.zeros(LATENT, np.int64)),
        (DEVICE, "ties.symbols", np.zeros(3, bool)),
        (DEVICE, "ties.symbols", np.zeros(LATENT, np.uint8)),
        (DEVICE, "image", np.float32(1)),
        (DEVICE, "image", np.zeros((1, 3, 224, 224), np.float64)),
        (DEVICE, "image", np.zeros((0, 3, 224, 224), np.float32)),
        (EDGE, "outputs.logits", np.zeros((1, 0), np.float32)),
        (EDGE, "outputs.logits", np.full((1, 10), "x")),
        (DEVICE, "stream", np.full(3, "x")),
        (DEVICE, "stream", np.zeros((3, 1), np.uint8)),
        (DEVICE, "wire.more", np.zeros(LATENT, np.int32)),
        (EDGE, "boxes_inputs.levels", np.zeros((5, 1), np.int32)),
    ):
        damaged = record(name, {array: value})
        with pytest.raises(BundleError):
            run_selftest(open_bundle(damaged))


@pytest.mark.parametrize(
    ("name", "array", "saying"),
    [
        (DEVICE, "image", "symbols differ from PyTorch's"),
        (DEVICE, "wire.symbols", "symbols differ from PyTorch's"),
        (EDGE, "inputs.symbols", "decodes to other symbols than the recorded ones"),
        (EDGE, "outputs.logits", "logits differs from PyTorch's"),
        (DEVICE, "stream", "another stream than the recorded one"),
    ],
)
def test_a_record_of_another_run_fails_parity(damaged, record, name, array, saying) -> None:
    with np.load(damaged / name) as arrays:
        value = arrays[array].copy()
    value.reshape(-1)[::2] += np.ones((), value.dtype)
    with pytest.raises(ParityError, match=saying):
        run_selftest(open_bundle(record(name, {array: value})))


def test_a_record_of_nan_fails_parity(record) -> None:
    damaged = record(EDGE, {"outputs.logits": np.full((1, 10), np.nan, np.float32)})
    with pytest.raises(ParityError, match="differs from PyTorch's by inf"):
        run_selftest(open_bundle(damaged))


def test_a_record_damaged_anywhere_is_refused_or_read_right(damaged) -> None:
    path = damaged / DEVICE
    bundle = open_bundle(damaged)
    right = DeviceRecord.load(bundle)
    content = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(content), 40)
    for place in (*range(0, 60, 7), *range(len(content) - 60, len(content), 7), *places):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            found = DeviceRecord.load(bundle)
        except BundleError as error:
            assert "selftest.npz" in str(error)
        else:
            assert found.stream == right.stream
            assert np.array_equal(found.wire["symbols"], right.wire["symbols"])


# Code


@pytest.fixture
def trap(damaged, tmp_path):
    """Code in the bundle's own runtime that leaves a trace when it is run."""
    sprung = tmp_path / "sprung"
    for name in ("__init__.py", "__main__.py", "cli.py", "errors.py"):
        path = damaged / "splitrun" / name
        line = f"open({str(sprung)!r}, 'w').close(); raise SystemExit(99)\n"
        path.write_text(line + path.read_text())
    return sprung


def test_verify_runs_no_code_of_the_bundle(damaged, trap) -> None:
    with pytest.raises(BundleError, match=r"splitrun/.*\.py was changed"):
        export.verify(damaged)
    assert not trap.exists()


def test_run_runs_no_code_of_the_bundle(damaged, trap, photo, monkeypatch) -> None:
    monkeypatch.chdir(damaged)  # where `python -m` looks first
    (run,) = export.run(damaged, [photo])
    assert len(run.top) == 5
    assert not trap.exists()


def test_run_runs_no_module_that_lies_in_the_bundle(damaged, photo, tmp_path, monkeypatch):
    # `python -m` puts the working folder in front of sys.path: a bundle that brings a numpy.py must
    # not have it run by whoever stands in its folder.
    sprung = tmp_path / "sprung"
    for module in ("numpy", "splitzoo", "onnxruntime", "json"):
        (damaged / f"{module}.py").write_text(f"open({str(sprung)!r}, 'w').close()\n")
    monkeypatch.chdir(damaged)
    export.run(Path(), [photo])
    assert not sprung.exists()


def test_run_refuses_parts_that_were_changed(damaged, photo) -> None:
    # A changed weight still loads and still gives a prediction: a wrong one.
    for name in ("device/encoder.onnx", "edge/decoder.onnx", "tables.npz"):
        path = damaged / name
        whole = path.read_bytes()
        content = bytearray(whole)
        content[int(0.7 * len(content))] ^= 0x01
        path.write_bytes(content)
        with pytest.raises(SplitzooError, match=f"{name} was changed"):
            export.run(damaged, [photo])
        path.write_bytes(whole)


def test_a_record_of_nothing_but_ties_is_refused(record) -> None:
    damaged = record(DEVICE, {"ties.symbols": np.ones(LATENT, bool)})
    with pytest.raises(BundleError, match="symbols differ; up to 1% can lie on rounding"):
        export.verify(hashed(damaged))
