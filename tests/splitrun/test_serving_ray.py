"""The edge server on a Ray cluster, and what its arguments are refused for."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from edge_server import BATCH, STREAM, batch
from ray_server import PYTHON, ray_server

from splitrun import Device, Edge, open_bundle
from splitrun.errors import DependencyError, RequestError, SplitzooError, UsageError
from splitrun.serving.ray_serve import edge


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "There is no bundle."),
        ({"bundles": ""}, "There is no bundle."),
        ({"bundles": "a", "port": 8080}, "There is no argument port."),
        ({"bundles": "a", "max_batch": "many"}, "max_batch: 'many' is not a whole number."),
        ({"bundles": "a", "threads": 0}, "threads: 0 is not between 1 and 1,024."),
        (
            {"bundles": "a", "body_timeout_s": 0},
            "body_timeout_s: 0 is not a number above 0, up to 86,400.",
        ),
        ({"bundles": "a", "trust": "perhaps"}, "trust: 'perhaps' is neither true nor false."),
    ],
)
def test_what_is_wrong_with_arguments_is_said(arguments, said) -> None:
    with pytest.raises(UsageError) as caught:
        edge(arguments)
    assert caught.value.message == said


def test_bundles_and_tokens_are_looked_at_first(tiny_bundle, tmp_path, monkeypatch) -> None:
    with pytest.raises(SplitzooError, match="is not a bundle"):
        edge({"bundles": tmp_path})
    with pytest.raises(RequestError, match="Two bundles have the name tiny"):
        edge({"bundles": f"{tiny_bundle},{tiny_bundle}"})
    with pytest.raises(SplitzooError, match="Cannot read the tokens"):
        edge({"bundles": tiny_bundle, "token_file": tmp_path / "none"})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match="Ray Serve needs ray"):
        edge({"bundles": tiny_bundle})


@pytest.fixture(scope="module")
def cluster(batched_bundle, bundle, tmp_path_factory):
    """Two bundles; the small one gets a second replica as soon as requests wait."""
    if not PYTHON.exists():
        pytest.skip("needs Ray in an environment of its own: make servers")
    soon = {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 1}
    soon |= {"target_ongoing_requests": 2}
    cores = {"ray_actor_options": {"num_cpus": 0.25}}
    deployments = [{"name": "tiny", "autoscaling_config": soon} | cores, {"name": "large"} | cores]
    arguments = {"bundles": f"{batched_bundle},large={bundle}", "max_queue": 64}
    folder = tmp_path_factory.mktemp("cluster")
    with ray_server(folder, arguments, deployments) as server:
        yield server


@pytest.fixture
def client(cluster):
    with httpx.Client(base_url=cluster.address, timeout=60) as opened:
        yield opened


@pytest.mark.slow
def test_a_cluster_answers_as_the_edge_half_does(batched_bundle, bundle, photos, client) -> None:
    half, device = Edge(open_bundle(batched_bundle)), Device(open_bundle(batched_bundle))
    streams = [bytes(device.encode_image(photo)) for photo in photos[:5]]
    other = bytes(Device(open_bundle(bundle)).encode_image(photos[0]))
    names = [model["name"] for model in client.get("/v1/models").json()["models"]]
    assert names == ["tiny", "large"]

    sent = [*streams, streams[0][:-1], other]
    answer = client.post("/v1/predict", content=batch(*sent), headers=BATCH, params={"top": 2})
    outputs = answer.json()["outputs"]
    assert [one["status"] for one in outputs] == [200] * 5 + [400, 200]
    assert [one["model"] for one in outputs[:5]] == ["tiny"] * 5
    assert outputs[6]["model"] == "large"
    for one, stream in zip(outputs, streams, strict=False):
        top = half.predict(stream, 2).top
        assert [score["index"] for score in one["top"]] == [score.index for score in top]
        found = [score["probability"] for score in one["top"]]
        assert found == pytest.approx([score.probability for score in top], abs=1e-5)

    wrong = client.post("/v1/models/tiny/predict", content=other, headers=STREAM)
    assert (wrong.status_code, wrong.json()["error"]["kind"]) == (409, "ForeignStreamError")
    mask = client.post("/v1/predict", content=streams[0], headers=STREAM, params={"mask": "png"})
    assert (mask.status_code, mask.json()["error"]["kind"]) == (400, "RequestError")


@pytest.mark.slow
def test_a_cluster_speaks_kserve(batched_bundle, photos, cluster) -> None:
    client_of = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    half, device = Edge(open_bundle(batched_bundle)), Device(open_bundle(batched_bundle))
    streams = [bytes(device.encode_image(photo)) for photo in photos[:5]]
    tensor = client_of.InferInput("STREAM", [5], "BYTES")
    tensor.set_data_from_numpy(np.array(streams, object))
    wanted = [client_of.InferRequestedOutput("logits")]
    with client_of.InferenceServerClient(cluster.address.removeprefix("http://")) as opened:
        found = opened.infer("tiny", [tensor], outputs=wanted).as_numpy("logits")
    expected = np.concatenate([half.decode(stream)[0] for stream in streams])
    assert np.abs(found - expected).max() < 1e-5


def order_of(answer: httpx.Response) -> list[int]:
    return [score["index"] for score in answer.json()["top"]]


@pytest.mark.slow
def test_replicas_come_with_the_work_and_come_again(batched_bundle, photo, cluster, client) -> None:
    device = Device(open_bundle(batched_bundle))
    stream = bytes(device.encode_image(photo))
    damaged = bytearray(stream)
    damaged[-1] ^= 1
    expected = order_of(client.post("/v1/predict", content=stream, headers=STREAM))
    stop, statuses = threading.Event(), []

    def ask(number):
        with httpx.Client(base_url=cluster.address, timeout=60) as own:
            while not stop.is_set():
                sent = bytes(damaged) if number == 0 else stream
                answer = own.post("/v1/predict", content=sent, headers=STREAM)
                if answer.status_code == 200:
                    assert order_of(answer) == expected
                statuses.append((number == 0, answer.status_code))

    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(ask, number) for number in range(12)]
        try:
            until = time.monotonic() + 120
            while len(pids := cluster.replicas("tiny")) < 2:
                assert not any(one.done() for one in asking)
                assert time.monotonic() < until
                time.sleep(0.5)
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert set(statuses) == {(True, 400), (False, 200)}

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 120
    while (answer := client.post("/v1/predict", content=stream, headers=STREAM)).status_code != 200:
        assert (answer.status_code, answer.json()["error"]["kind"]) in (
            (500, "SplitzooError"),
            (503, "BusyError"),
        )
        assert time.monotonic() < until
        time.sleep(0.2)
    assert order_of(answer) == expected
