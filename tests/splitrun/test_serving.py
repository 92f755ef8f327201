"""What the edge server answers over HTTP, held against the edge half used directly."""

import base64
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from edge_server import BATCH, STREAM, batch, edge_server
from PIL import Image
from small_models import small_spec

from splitrun import Device, Edge, open_bundle
from splitrun.predictions.segmentation import class_map
from splitrun.record import DeviceRecord
from splitrun.serving import answers as server_answers
from splitzoo import export, zoo

LIMITS = ["--max-body", 200_000, "--max-streams", 8, "--instances", 2, "--max-delay", 20]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter") / "bundle"
    export.split(zoo.build(small_spec("semantic-segmentation", "shp")), folder)
    return folder


@pytest.fixture(scope="module")
def server(batched_bundle, segmenter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with edge_server(folder, batched_bundle, f"shapes={segmenter}", *LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def streams(batched_bundle, photos):
    device = Device(open_bundle(batched_bundle))
    return [bytes(device.encode_image(photo)) for photo in photos]


@pytest.fixture(scope="module")
def expected(batched_bundle, streams):
    edge = Edge(open_bundle(batched_bundle))
    return [edge.predict(stream) for stream in streams]


def agrees(document, prediction) -> None:
    found = [(score["index"], score["label"]) for score in document["top"]]
    assert found == [(score.index, score.label) for score in prediction.top]
    for score, other in zip(document["top"], prediction.top, strict=True):
        assert score["probability"] == pytest.approx(other.probability, abs=1e-5)


def damaged(stream: bytes) -> bytes:
    return stream[:-5] + bytes([stream[-5] ^ 1]) + stream[-4:]


def foreign(stream: bytes) -> bytes:
    """The same stream of another model, with the CRC-32 that it needs."""
    body = stream[:4] + b"\xfe\xed\xbe\xef" + stream[8:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def test_one_stream_is_answered_with_what_decode_prints(
    client, batched_bundle, streams, expected, tmp_path
) -> None:
    answer = client.post("/v1/predict", content=streams[0], headers=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    agrees(answer.json(), expected[0])
    (tmp_path / "a.sz").write_bytes(streams[0])
    command = [sys.executable, "-m", "splitrun", "--bundle", batched_bundle, "decode", "--json"]
    done = subprocess.run([*command, tmp_path / "a.sz"], capture_output=True, check=True)
    (printed,) = json.loads(done.stdout)["outputs"]
    fields = {"model", "stream_id", "tail", "weights", "timing_ms"}
    assert answer.json().keys() - fields == printed.keys() - {"stream"}
    spent = answer.json()["timing_ms"]
    assert spent["decode"] + spent["graph"] + spent["queue"] <= spent["total"] + 0.01
    named = client.post("/v1/models/tiny/predict?top=2", content=streams[1], headers=STREAM)
    assert len(named.json()["top"]) == 2
    assert named.json()["top"][0]["index"] == expected[1].top[0].index


def test_several_streams_are_answered_in_order_and_the_bad_ones_alone_refused(
    client, streams, expected
) -> None:
    sent = [streams[0], damaged(streams[1]), streams[2], foreign(streams[3]), b"", streams[4]]
    files = [("stream", (f"{place}.sz", stream)) for place, stream in enumerate(sent)]
    for answer in (
        client.post("/v1/predict", content=batch(*sent), headers=BATCH),
        client.post("/v1/models/tiny/predict", files=files),
    ):
        outputs = answer.json()["outputs"]
        assert answer.status_code == 200
        assert [output["status"] for output in outputs] == [200, 400, 200, 409, 400, 200]
        for place in (0, 2, 5):
            agrees(outputs[place], expected[place if place < 5 else 4])
        assert outputs[1]["error"]["message"].startswith("The stream is damaged: its CRC-32")
        assert "feedbeef" in outputs[3]["error"]["message"]
        assert outputs[3]["error"]["kind"] == "ForeignStreamError"


def test_many_at_once_are_run_in_batches_beside_bad_ones(client, server, streams, expected) -> None:
    sent = [(place, damaged(streams[place])) for place in range(10)]
    sent += [(place, stream) for place, stream in enumerate(streams)]

    def post(numbered):
        return client.post("/v1/predict", content=numbered[1], headers=STREAM)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, sent * 4))
    for (place, stream), answer in zip(sent * 4, answers, strict=True):
        if stream == streams[place]:
            agrees(answer.json(), expected[place])
        else:
            assert answer.status_code == 400
    metrics = client.get("/metrics").text
    labels = 'model="tiny",tail="classification"'
    runs = float(re.search(rf"splitrun_batch_size_count{{{labels}}} (\S+)", metrics)[1])
    run = float(re.search(rf"splitrun_batch_size_sum{{{labels}}} (\S+)", metrics)[1])
    answered = rf'splitrun_streams_total{{model="tiny",outcome="answered",{labels[13:]}}} (\S+)'
    assert float(re.search(answered, metrics)[1]) == run > runs
    assert "splitrun_queue_streams 0.0" in metrics


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "saying"),
    [
        ("/v1/predict", {"Content-Type": "application/json"}, b"{}", 415, "application/json"),
        ("/v1/predict", {}, b"SZ", 415, "The body is of no type"),
        ("/v1/predict", STREAM, b"", 400, "The stream has 0 bytes"),
        ("/v1/predict", STREAM, b"{}" * 20, 400, "it does not begin with 'SZ'"),
        ("/v1/predict", STREAM, b"0" * 200_001, 413, "more than 200,000 bytes"),
        ("/v1/predict", BATCH, b"", 400, "The body holds no stream."),
        ("/v1/predict", BATCH, b"\xff\xff\xff\x7fSZ", 400, "ends within stream 0"),
        ("/v1/predict", BATCH, b"\x00\x00\x00\x00\x01", 400, "ends within stream 1"),
        ("/v1/predict", BATCH, bytes(4 * 9), 413, "more than 8 streams"),
        ("/v1/predict", STREAM | {"Content-Encoding": "gzip"}, b"SZ", 415, "is compressed"),
        ("/v1/predict", STREAM | {"Idempotency-Key": "ä b"}, b"SZ", 400, "Idempotency-Key"),
        ("/v1/predict", BATCH | {"Idempotency-Key": "a"}, bytes(8), 400, "1 keys for 2 streams"),
        ("/v1/predict?top=0", STREAM, b"SZ", 400, "top is '0'"),
        ("/v1/predict?top=1e3", STREAM, b"SZ", 400, "top is '1e3'"),
        ("/v1/predict?image_size=0x9", STREAM, b"SZ", 400, "image_size is '0x9'"),
        ("/v1/predict?mask=bmp", STREAM, b"SZ", 400, "mask is 'bmp', not png or rle"),
        ("/v1/predict?tpo=3", STREAM, b"SZ", 400, "no parameter 'tpo'"),
        ("/v1/models/rose/predict", STREAM, b"SZ", 404, "No model is named 'rose'"),
        ("/v1/models/tiny", STREAM, b"SZ", 405, "does not take POST"),
        ("/v1/models/tiny/predictions", STREAM, b"SZ", 405, "does not take POST"),
        ("/v3/models", STREAM, b"SZ", 404, "No path is named '/v3/models'"),
        ("/v1/predict", {"Content-Type": "multipart/form-data"}, b"SZ", 400, "Missing boundary"),
    ],
)
def test_a_wrong_request_is_refused(client, path, headers, body, status, saying) -> None:
    sent = {name: value.encode() for name, value in headers.items()}
    answer = client.post(path, content=body, headers=sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["exit_code"]) == (status, 1)
    assert saying in error["message"]
    assert error.keys() == {"kind", "message", "next_step", "exit_code"}


def test_a_tail_that_is_none_and_a_mask_of_a_classifier_are_refused(client, streams) -> None:
    for query, status in (("tail=second", 404), ("mask=rle", 400)):
        answer = client.post(f"/v1/predict?{query}", content=streams[0], headers=STREAM)
        assert answer.status_code == status
    message = "A mask is of semantic-segmentation; this tail is of image-classification."
    assert answer.json()["error"]["message"] == message


def test_a_stream_of_another_model_here_is_refused_under_a_name_and_found_without(
    client, segmenter
) -> None:
    stream = DeviceRecord.load(open_bundle(segmenter)).stream
    refused = client.post("/v1/models/tiny/predict", content=stream, headers=STREAM)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "ForeignStreamError")
    found = client.post("/v1/predict", content=stream, headers=STREAM)
    assert (found.status_code, found.json()["model"]) == (200, "shapes")


def test_a_mask_may_be_the_whole_answer(client, segmenter) -> None:
    bundle = open_bundle(segmenter)
    stream = DeviceRecord.load(bundle).stream
    path, headers = "/v1/models/shapes/predict?mask=png", STREAM | {"Accept": "image/png"}
    answer = client.post(path, content=stream, headers=headers)
    assert answer.headers["content-type"] == "image/png"
    (logits,) = Edge(bundle).decode(stream)
    image = Image.open(io.BytesIO(answer.content))
    assert np.array_equal(np.asarray(image), class_map(logits))


def test_masks_hold_the_class_of_each_pixel(segmenter) -> None:
    bundle = open_bundle(segmenter)
    edge, (tail,) = Edge(bundle), bundle.edge.tails
    logits = np.random.default_rng(0).normal(size=(1, 7, 64, 96)).astype(np.float32)
    logits[:, 2, :20] += 9
    expected = logits[0].argmax(0)

    def mask(form, **options):
        question = server_answers.Question(mask=form, **options)
        said = server_answers.answer("shapes", bundle, edge, tail, [logits], question, {})
        return json.loads(said.body)["mask"]

    png = mask("png")
    assert (png["format"], png["size"]) == ("png", [64, 96])
    image = Image.open(io.BytesIO(base64.b64decode(png["data"])))
    assert np.array_equal(np.asarray(image), expected)
    runs = np.array(mask("rle")["runs"])
    assert runs[0].tolist()[0] == 2
    assert runs[0][1] >= 20 * 96
    assert np.array_equal(np.repeat(runs[:, 0], runs[:, 1]), expected.reshape(-1))
    assert (np.diff(runs[:, 0]) != 0).all()
    # Of an image twice as wide as high, the padding below is no part.
    runs = np.array(mask("rle", image_size=(400, 200))["runs"])
    assert np.array_equal(np.repeat(runs[:, 0], runs[:, 1]), expected[:48, :96].reshape(-1))


def test_models_are_described(client, batched_bundle) -> None:
    tiny, shapes = client.get("/v1/models").json()["models"]
    bundle = open_bundle(batched_bundle)
    assert (tiny["name"], shapes["name"]) == ("tiny", "shapes")
    assert tiny["stream_id"] == bundle.manifest.coding.stream_id
    assert tiny["input"] == {"height": 224, "width": 224, "latent": list(bundle.codec().shape)}
    assert tiny["tails"]["classification"]["classes"] == 10
    assert tiny["tails"]["classification"]["batch"] == 8
    assert [tail["batch"] for tail in shapes["tails"].values()] == [1]
    assert client.get("/v1/models/tiny").json() == tiny
    assert client.get(f"/v1/models/{tiny['stream_id']}").json() == tiny
    assert client.get("/v1/models/rose").status_code == 404
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"ready": True}


# Repeats


def counted(client, outcome: str) -> float:
    pattern = rf'splitrun_streams_total{{model="[a-z]*",outcome="{outcome}",tail="[a-z]*"}} (\S+)'
    return sum(map(float, re.findall(pattern, client.get("/metrics").text)))


def test_a_repeat_gets_the_same_bytes_and_is_not_counted_again(client, streams) -> None:
    before = counted(client, "answered"), counted(client, "repeated")
    for stream in (streams[0], damaged(streams[0])):
        key = {"Idempotency-Key": f"camera-7:{zlib.crc32(stream)}"}
        first = client.post("/v1/predict", content=stream, headers=STREAM | key)
        again = client.post("/v1/predict", content=stream, headers=STREAM | key)
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert (again.status_code, again.content) == (first.status_code, first.content)
        other = client.post("/v1/predict", content=streams[1], headers=STREAM | key)
        assert (other.status_code, other.json()["error"]["kind"]) == (422, "RequestError")
    assert counted(client, "answered") == before[0] + 1
    assert counted(client, "repeated") == before[1] + 2


def test_repeats_at_the_same_time_are_run_once(client, streams) -> None:
    before = counted(client, "answered")
    headers = STREAM | {"Idempotency-Key": "camera-8:1"}

    def post(_number):
        return client.post("/v1/predict", content=streams[2], headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7
    assert counted(client, "answered") == before + 1


def test_streams_of_a_batch_have_keys_of_their_own(client, streams) -> None:
    sent = batch(streams[0], damaged(streams[1]))
    keys = {"Idempotency-Key": "b:1, b:2"}
    first = client.post("/v1/predict", content=sent, headers=BATCH | keys).json()["outputs"]
    assert not any("replayed" in output for output in first)
    headers = {"Idempotency-Key": "b:2"}
    files = [
        ("x", ("new.sz", streams[3])),
        ("x", ("old.sz", damaged(streams[1]), "application/octet-stream", headers)),
    ]
    new, old = client.post("/v1/predict", files=files).json()["outputs"]
    assert "replayed" not in new
    assert old == first[1] | {"replayed": True}
