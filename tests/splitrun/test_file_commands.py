"""``encode`` and ``decode`` with folders, pipes and many files; many images from a program."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from splitrun import Device, Edge, open_bundle
from splitrun.cli import main
from splitrun.errors import BitstreamError


@pytest.fixture(scope="module")
def streams(tiny_bundle, photos):
    device = Device(open_bundle(tiny_bundle))
    return [bytes(device.encode_image(photo)) for photo in photos[:3]]


@pytest.fixture
def folder(photos, tmp_path):
    """A folder of images with one below, and a file that is none."""
    for name, photo in zip(("a.jpg", "b.jpg", "below/a.jpg"), photos, strict=False):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("no image")
    return tmp_path / "photos"


def run(bundle, *words, **options):
    command = [sys.executable, "-m", "splitrun", "--bundle", bundle, *map(str, words)]
    return subprocess.run(command, capture_output=True, check=True, **options)


def test_a_folder_is_encoded_and_decoded_with_its_tree(
    tiny_bundle, folder, streams, tmp_path, capsys
) -> None:
    command, out = ["--bundle", str(tiny_bundle)], tmp_path / "out"
    assert main([*command, "encode", str(folder), "-o", str(out)]) == 0
    written = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.sz")}
    names = ("a.sz", "b.sz", "below/a.sz")
    assert written == dict(zip(names, streams, strict=True))
    capsys.readouterr()
    assert main([*command, "decode", str(out), "--json"]) == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [output["stream"] for output in outputs] == [str(out / name) for name in names]
    edge = Edge(open_bundle(tiny_bundle))
    for output, stream in zip(outputs, streams, strict=True):
        assert output["top"][0]["index"] == edge.predict(stream).top[0].index


def test_streams_lie_beside_the_images_of_a_folder_unless_told(tiny_bundle, folder) -> None:
    assert main(["--bundle", str(tiny_bundle), "encode", str(folder)]) == 0
    assert sorted(path.name for path in folder.rglob("*.sz")) == ["a.sz", "a.sz", "b.sz"]


def test_a_pipe_takes_an_image_and_gives_a_prediction(tiny_bundle, photos, streams) -> None:
    piped = run(tiny_bundle, "encode", "-", input=photos[0].read_bytes())
    assert piped.stdout == streams[0]
    assert piped.stderr.decode().split(": ")[1] == f"{len(streams[0]):,} bytes\n"
    assert run(tiny_bundle, "encode", photos[0], "-o", "-").stdout == streams[0]
    said = run(tiny_bundle, "decode", "-", "--json", input=streams[0])
    (output,) = json.loads(said.stdout)["outputs"]
    assert output["stream"] == "-"
    assert (
        output["top"][0]["index"] == Edge(open_bundle(tiny_bundle)).predict(streams[0]).top[0].index
    )


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (["encode", "-", "-", "-o", "out"], "standard input was named twice"),
        (["encode", "PHOTO", "FOLDER", "-o", "-"], "there are 4 streams"),
        (["encode", "-", "PHOTO"], "there are 2 streams"),
        (["decode", "FOLDER"], "holds no file that ends in .sz"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tiny_bundle, folder, capsys, tmp_path, monkeypatch, words, saying
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"PHOTO": str(folder / "a.jpg"), "FOLDER": str(folder)}
    code = main(["--bundle", str(tiny_bundle), *(named.get(word, word) for word in words)])
    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "")
    assert saying in captured.err
    assert not list(tmp_path.rglob("*.sz"))


def test_many_images_and_streams_are_as_each_by_itself(batched_bundle, photos) -> None:
    bundle = open_bundle(batched_bundle)
    device, edge = Device(bundle), Edge(bundle)
    frames = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos[:5]]
    given = iter(frames)
    streams = device.encode_images(given)
    first = next(streams)
    assert np.array_equal(next(given), frames[1])  # no frame was taken before it was wanted
    del first
    streams = list(device.encode_images(frames))
    assert streams == [device.encode_image(frame) for frame in frames]
    for outputs, stream in zip(edge.decode_many(streams, batch=2), streams, strict=True):
        expected = edge.decode(stream)["logits"]
        assert np.allclose(outputs["logits"], expected, rtol=0, atol=1e-5 * abs(expected).max())
    found = list(edge.predict_many(streams, top=2))
    for prediction, stream in zip(found, streams, strict=True):
        alone = edge.predict(stream, top=2)
        assert [one.index for one in prediction.top] == [one.index for one in alone.top]
    assert list(edge.predict_many([])) == []
    with pytest.raises(BitstreamError, match="Stream 2: The stream is damaged"):
        list(edge.decode_many([*streams[:2], streams[2][:-1]]))


def test_threads_share_the_halves_for_many_images(batched_bundle, photos) -> None:
    bundle = open_bundle(batched_bundle)
    device, edge = Device(bundle), Edge(bundle)

    def work(start):
        some = photos[start : start + 3]
        streams = list(device.encode_images(some))
        indexes = [one.top[0].index for one in edge.predict_many(streams, batch=3)]
        return streams, indexes

    serial = [work(start) for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [0, 1, 2, 3] * 4)) == serial * 4
