"""Streams over a real broker."""

import json
import socket
import subprocess
import sys
import time

import pytest
from edge_servers import EdgeServer
from free_port import free_port

pytest.importorskip("paho.mqtt", reason="needs paho-mqtt")
pytest.importorskip("amqtt", reason="needs a broker: amqtt")

BROKER = """
import asyncio, sys
from amqtt.broker import Broker

async def main():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def broker():
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", BROKER, str(port)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as tried:
            if not tried.connect_ex(("127.0.0.1", port)):
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"mqtt://127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_streams_go_and_answers_come_back(broker, tiny_bundle, tmp_path, photos) -> None:
    with EdgeServer([400]) as server:
        words = ["receive", "--from", broker, "--to", server.url, "--spool", tmp_path / "gate"]
        gate = subprocess.Popen(
            [sys.executable, "-m", "splitrun", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        words = ["--bundle", tiny_bundle, "send", "--to", broker, "--spool", tmp_path / "spool"]
        words += ["--device", "camera 7", *photos[:3]]
        done = subprocess.run(
            [sys.executable, "-m", "splitrun", *map(str, words)],
            capture_output=True,
            timeout=90,
        )
        gate.terminate()
        gate.communicate(timeout=30)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == list(map(str, photos[:3]))
    # The server refused the first; the others' answers are the numbers of their bytes.
    assert "answers 400: Said so" in lines[0]["error"]["message"]
    assert [line["answer"]["bytes"] for line in lines[1:]] == [
        len(request.body) for request in server.requests[1:]
    ]
    keys = [f"camera-7/{line['id']}" for line in lines]
    assert [request.key for request in server.requests] == keys
    assert (done.returncode, b"1 of 3 streams were refused" in done.stderr) == (1, True)
    assert not list(tmp_path.rglob("*.item"))


def test_no_broker(tiny_bundle, tmp_path, photo) -> None:
    words = ["--bundle", tiny_bundle, "send", "--to", "mqtt://127.0.0.1:1", "--retry-for", "0"]
    words += ["--spool", tmp_path / "spool", photo]
    done = subprocess.run(
        [sys.executable, "-m", "splitrun", *map(str, words)], capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert b"The broker mqtt://127.0.0.1 cannot be reached: connection refused." in done.stderr
    assert b"1 stream stays in" in done.stderr
