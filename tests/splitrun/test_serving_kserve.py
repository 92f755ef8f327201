"""The KServe protocol, spoken by NVIDIA's client for it."""

import base64
import json

import httpx
import numpy as np
import pytest
from edge_server import STREAM, edge_server

from splitrun import Device, Edge, open_bundle

client_of = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")


@pytest.fixture(scope="module")
def server(tiny_bundle, tmp_path_factory):
    with edge_server(tmp_path_factory.mktemp("server"), tiny_bundle, "--max-streams", 4) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with client_of.InferenceServerClient(server.address.removeprefix("http://")) as opened:
        yield opened


@pytest.fixture(scope="module")
def streams(tiny_bundle, photos):
    device = Device(open_bundle(tiny_bundle))
    return [bytes(device.encode_image(photo)) for photo in photos[:5]]


def stream_input(streams, *, binary=True):
    found = client_of.InferInput("STREAM", [len(streams)], "BYTES")
    values = streams if binary else [base64.b64encode(stream) for stream in streams]
    found.set_data_from_numpy(np.array(values, object), binary_data=binary)
    return found


def test_the_server_and_the_model_are_described(client, tiny_bundle) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("rose")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    (listed,) = client.get_model_repository_index()
    assert (listed["name"], listed["state"]) == ("tiny", "READY")
    found = client.get_model_metadata("tiny", "1")
    assert found["inputs"] == [{"name": "STREAM", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"][1:] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_streams_become_the_logits_and_predictions_of_the_edge_half(
    client, streams, tiny_bundle, binary
) -> None:
    edge = Edge(open_bundle(tiny_bundle))
    wanted = [
        client_of.InferRequestedOutput(name, binary_data=binary)
        for name in ("logits", "PREDICTION")
    ]
    sent = streams[:3]
    result = client.infer(
        "tiny",
        [stream_input(sent, binary=binary)],
        outputs=wanted,
        request_id="seven",
        parameters={"top": 2},
    )
    assert result.get_response()["id"] == "seven"
    logits = result.as_numpy("logits")
    assert logits.dtype == np.float32
    direct = np.concatenate([edge.decode(stream)["logits"] for stream in sent])
    assert np.allclose(logits, direct, rtol=0, atol=1e-5 * abs(direct).max())
    for text, stream in zip(result.as_numpy("PREDICTION"), sent, strict=True):
        top = json.loads(text)["top"]
        assert [one["index"] for one in top] == [one.index for one in edge.predict(stream, 2).top]


def test_a_request_without_outputs_gets_predictions(client, server, streams) -> None:
    result = client.infer("tiny", [stream_input(streams[:1])])
    direct = httpx.post(f"{server.address}/v1/predict", content=streams[0], headers=STREAM).json()
    (text,) = result.as_numpy("PREDICTION")
    assert json.loads(text)["top"] == direct["top"]
    assert result.as_numpy("logits") is None


@pytest.mark.parametrize(
    ("change", "status", "saying"),
    [
        (lambda streams: [streams[0], streams[1][:-1]], "400", "Stream 1: The stream is damaged"),
        (lambda streams: [b"{}" * 20], "400", "does not begin with 'SZ'"),
        (lambda streams: streams, "413", "more than 4 streams"),
    ],
)
def test_bad_streams_are_named(client, streams, change, status, saying) -> None:
    with pytest.raises(client_of.InferenceServerException, match=saying) as caught:
        client.infer("tiny", [stream_input(change(streams))])
    assert caught.value.status() == status


def test_an_unknown_output_is_refused(client, streams) -> None:
    wanted = [client_of.InferRequestedOutput("boxes")]
    with pytest.raises(client_of.InferenceServerException, match="no output 'boxes'"):
        client.infer("tiny", [stream_input(streams[:1])], outputs=wanted)


GOOD = {"name": "STREAM", "datatype": "BYTES", "shape": [1], "data": ["U1o="]}


@pytest.mark.parametrize(
    ("body", "headers", "saying"),
    [
        (b"SZ", {}, "does not begin with JSON"),
        (b"[" * 100_000, {}, "does not begin with JSON"),
        (b"[]", {}, "not a JSON object"),
        ({}, {}, "not one input"),
        ({"inputs": [GOOD | {"name": "IMAGE"}]}, {}, "'IMAGE' of 'BYTES', not STREAM"),
        ({"inputs": [GOOD | {"shape": "x"}]}, {}, r"not [n]"),
        ({"inputs": [GOOD | {"shape": [2]}]}, {}, "shape [2] and 1 streams"),
        ({"inputs": [GOOD | {"data": ["?"]}]}, {}, "not base64"),
        ({"inputs": [GOOD | {"data": [7]}]}, {}, "not a list of texts"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 9}}]}, {}, "0 bytes follow"),
        ({"inputs": [GOOD], "outputs": 7}, {}, "outputs is not a list"),
        ({"inputs": [GOOD], "parameters": {"top": -1}}, {}, "top is '-1'"),
        ({"inputs": [GOOD], "parameters": {"tail": 7}}, {}, "tail is not a word"),
        ({"inputs": [GOOD]}, {"Inference-Header-Content-Length": "999"}, "not within the body"),
        ({"inputs": [GOOD]}, {}, "The stream has 2 bytes"),
    ],
)
def test_a_request_of_another_form_is_refused(server, body, headers, saying) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server.address}/v2/models/tiny/infer"
    answer = httpx.post(url, content=content, headers=headers)
    assert answer.status_code == 400
    assert saying in answer.json()["error"]
