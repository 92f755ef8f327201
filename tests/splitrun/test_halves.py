"""Device and Edge as a program uses them: images in any form, named outputs, many threads."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from splitrun import Device, Edge, Stream, open_bundle
from splitrun.engines import onnx_runtime
from splitrun.errors import BitstreamError, ImageError


@pytest.fixture(scope="module")
def halves(tiny_bundle):
    bundle = open_bundle(str(tiny_bundle))
    return bundle, Device(bundle), Edge(bundle)


def test_an_image_in_any_form_gives_the_same_stream(halves, photo) -> None:
    bundle, device, edge = halves
    opened = Image.open(photo).convert("RGB")
    stream = device.encode_image(photo)
    assert isinstance(stream, Stream)
    assert stream.payload_bytes == len(stream) - 12
    for image in (str(photo), photo.read_bytes(), opened, np.asarray(opened)):
        assert device.encode_image(image) == stream
    assert device.encode(bundle.preprocessing.load(photo)) == [stream]
    (logits,) = outputs = edge.decode(stream)
    assert outputs["logits"] is outputs[0] is logits
    assert logits.shape == (1, 10)
    assert repr(outputs) == "Outputs(logits: float32 (1, 10))"
    prediction = edge.predict(stream, top=3)
    assert prediction == edge.prediction(outputs, top=3)
    assert [score.index for score in prediction.top] == np.argsort(-logits[0])[:3].tolist()
    assert str(prediction).splitlines()[0].endswith(prediction.top[0].label)


@pytest.mark.parametrize(
    ("image", "saying"),
    [
        (b"no image", "the image given as bytes: it is not an image of a known format"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8 \(3, 4, 5\), not uint8 \(H, W, 3\)"),
        (np.full((4, 4, 3), 255, np.float32), "given as an array: its values are out of range"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (Image.new("F", (4, 4), 2), "given as a Pillow image: its values are out of range"),
        (7, "given as int: it is not a path, bytes, an open file, a Pillow"),
    ],
)
def test_what_is_no_image_is_refused(halves, image, saying) -> None:
    with pytest.raises(ImageError, match=saying):
        halves[1].encode_image(image)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 3, 224, 224), np.float64), ((1, 3, 9, 9), np.float32), ((3,), "f4")]
)
def test_tensors_of_another_form_are_refused(halves, shape, dtype) -> None:
    with pytest.raises(ImageError, match=r"tensor: it is .*, not float32 \(1, 3, 224, 224\)"):
        halves[1].encode(np.zeros(shape, dtype))


def test_one_image_is_a_batch_of_one(halves, photo) -> None:
    image = halves[0].preprocessing.load(photo)
    assert halves[1].encode(image[0]) == halves[1].encode(image)
    with pytest.raises(ImageError, match="given as str: it is not an array; encode_image takes"):
        halves[1].encode("photo.jpg")


@pytest.mark.parametrize("thread_safe", [True, False], ids=["engine for threads", "with a lock"])
def test_threads_get_what_one_thread_gets(tiny_bundle, photos, monkeypatch, thread_safe) -> None:
    monkeypatch.setattr(onnx_runtime.OnnxRuntimeSession, "thread_safe", thread_safe)
    bundle = open_bundle(tiny_bundle)
    device, edge = Device(bundle), Edge(bundle)

    def run(photo):
        stream = device.encode_image(photo)
        return stream, edge.decode(stream)["logits"].tobytes(), edge.predict(stream)

    def reject(stream):
        with pytest.raises(BitstreamError):
            edge.predict(stream[:-1])

    content = io.BytesIO()
    Image.new("RGB", (40, 30)).save(content, "PNG")
    images = [*photos[:3], content.getvalue()]
    serial = [run(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, images * 6)) == serial * 6
        list(pool.map(reject, [stream for stream, *_ in serial]))
