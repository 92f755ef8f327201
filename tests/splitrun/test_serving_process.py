"""The edge server as a process: its end, its limits, tokens, TLS, and bundles that are replaced."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from edge_server import BATCH, STREAM, batch, certificate, edge_server

from splitrun import Device, open_bundle
from splitrun.files import sha256_file
from splitrun.record import EdgeRecord


@pytest.fixture(scope="module")
def stream(tiny_bundle):
    return EdgeRecord.load(open_bundle(tiny_bundle)).stream


def post(server, stream, **options):
    url = f"{server.address}/v1/predict"
    headers = STREAM | options.pop("headers", {})
    return httpx.post(url, content=stream, headers=headers, **options)


def refused(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "splitrun", "serve", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Serving on" not in done.stdout
    return done.returncode, done.stderr


# What it does not start with


def test_a_port_in_use_is_named(tiny_bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(tiny_bundle, "--port", port)
    assert code == 1
    assert said == (
        f"error: Cannot listen on 127.0.0.1 port {port}: address already in use.\n"
        "Name another with --port, or 0 for a free one.\n"
    )


def test_what_it_cannot_serve_is_named(tiny_bundle, damaged, tmp_path) -> None:
    (damaged / "edge/decoder.onnx").write_bytes(b"no graph")
    (tmp_path / "none.txt").write_text("# no token\n")
    (tmp_path / "no.pem").write_text("no certificate")
    no_pem = ["--cert", tmp_path / "no.pem", "--key", tmp_path / "no.pem"]
    code, said = refused("--port", 0, tiny_bundle, "--cert", tmp_path / "no.pem")
    assert (code, said) == (2, "error: TLS needs both --cert and --key.\n")
    code, said = refused(tiny_bundle, "--port", "http")
    assert (code, said.splitlines()[-1].partition("error: ")[2]) == (
        *(2, "argument --port: 'http' is not a whole number"),
    )
    for words, saying in (
        ([tmp_path / "nothing"], "is not a bundle: it has no manifest.json"),
        ([damaged], "edge/decoder.onnx was changed"),
        ([tiny_bundle, tiny_bundle], "Two bundles have the name tiny."),
        ([tiny_bundle, "--token-file", tmp_path / "x"], "Cannot read the tokens in"),
        ([tiny_bundle, "--token-file", tmp_path / "none.txt"], "none.txt holds no token"),
        ([tiny_bundle, *no_pem], "Cannot use the certificate"),
        ([tiny_bundle, "--host", "256.1.1.1"], "Cannot listen on 256.1.1.1 port 0"),
        ([tiny_bundle, "--host", "256.1.1.1"], "Name an address of this machine with --host."),
    ):
        code, said = refused("--port", 0, *words)
        assert code == 1
        assert saying in said


# Its end


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_is_in_work_at_the_end_is_answered(
    tiny_bundle, tmp_path, stream, signum, code
) -> None:
    with edge_server(tmp_path, tiny_bundle, "--instances", 1) as server:

        def ask(_number):
            url = f"{server.address}/v1/predict"
            return httpx.post(url, content=batch(*[stream] * 64), headers=BATCH, timeout=60)

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, number) for number in range(3)]
            metrics = ""
            while "splitrun_queue_streams 0.0" in metrics or not metrics:
                metrics = httpx.get(f"{server.address}/metrics").text
            assert server.end(signum) == code
            for one in asked:
                outputs = one.result().json()["outputs"]
                assert [output["status"] for output in outputs] == [200] * 64
        log = server.log.read_text()
    assert "Ended." in log
    assert ("Stopped. What was in work was answered." in log) == (code == 130)
    assert "Traceback" not in log


# Its limits


@pytest.fixture(scope="module")
def strict(tiny_bundle, tmp_path_factory):
    limits = ["--header-timeout", 2, "--body-timeout", 0.5, "--max-body", 10_000]
    limits += ["--max-queue", 4, "--instances", 1, "--max-connections", 40]
    with edge_server(tmp_path_factory.mktemp("strict"), tiny_bundle, *limits) as running:
        yield running


def test_a_full_queue_is_said_with_when_to_come_again(strict, stream) -> None:
    url = f"{strict.address}/v1/predict"
    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(24) as pool:
        ask = lambda _: client.post(url, content=stream, headers=STREAM)  # noqa: E731
        answers = list(pool.map(ask, range(72)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.json()["error"]["kind"] == "BusyError"
    assert post(strict, stream).status_code == 200


def raw(server, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts as they are, and return all that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as opened:
        for part in parts:
            opened.sendall(part)
            time.sleep(pause)
        content = b""
        try:
            while more := opened.recv(1 << 16):
                content += more
        except ConnectionResetError:
            pass
        return content


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"


def test_slow_and_endless_clients_are_hung_up_on(strict, stream) -> None:
    began = time.monotonic()
    assert raw(strict) == b""
    assert raw(strict, HEAD) == b""
    slow = raw(strict, HEAD + b"Content-Length: 100\r\n\r\nSZ")
    assert slow.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not come within 0.5 s." in slow
    too_large = raw(strict, HEAD + b"Content-Length: 10001\r\n\r\n")
    assert too_large.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 10
    endless = raw(
        strict,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        *[b"3e8\r\n" + bytes(1000) + b"\r\n"] * 11,
    )
    assert endless.startswith(b"HTTP/1.1 413 ")
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(stream), stream)
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(strict, head + chunked).startswith(b"HTTP/1.1 200 ")
    assert raw(strict, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    # A client that vanishes within its request disturbs nobody.
    with socket.create_connection(("127.0.0.1", strict.port)) as opened:
        opened.sendall(HEAD + b"Content-Length: 100\r\n\r\nSZ")
    assert post(strict, stream).status_code == 200
    assert "Traceback" not in strict.log.read_text()


# Tokens and TLS


def test_tokens_are_asked_for_and_read_again(tiny_bundle, tmp_path, stream) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("# of the cameras\nfirst-token\n\nsecond-token\n")
    with edge_server(tmp_path, tiny_bundle, "--token-file", tokens) as server:

        def ask(token):
            return post(server, stream, headers={"Authorization": token} if token else {})

        for token in ("", "Bearer", "Bearer third-token", "Basic first-token", "# of the cameras"):
            answer = ask(token)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["kind"] == "TokenError"
        assert ask("Bearer first-token").status_code == 200
        assert ask("bearer second-token").status_code == 200
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/v2", 401)):
            assert httpx.get(server.address + path).status_code == status
        tokens.write_text("third-token\n")
        server.process.send_signal(signal.SIGHUP)
        server.logged("tiny was read again")
        time.sleep(0.2)
        assert ask("Bearer third-token").status_code == 200
        assert ask("Bearer first-token").status_code == 401
        tokens.unlink()
        server.process.send_signal(signal.SIGHUP)
        server.logged("The tokens stay as they were")
        assert ask("Bearer third-token").status_code == 200
        assert "first-token" not in server.log.read_text()


def test_tls_by_certificate_files(tiny_bundle, tmp_path, stream) -> None:
    cert, key = certificate(tmp_path)
    with edge_server(tmp_path, tiny_bundle, "--cert", cert, "--key", key) as server:
        assert server.address.startswith("https://127.0.0.1:")
        known = ssl.create_default_context(cafile=cert)
        assert post(server, stream, verify=known).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            post(server, stream)


# Bundles that are replaced


def renamed(folder: Path, to: Path, label: str) -> Path:
    """Copy a bundle with other labels, as of another training."""
    shutil.copytree(folder, to)
    labels = [f"{label} {number}" for number in range(10)]
    (to / "edge/labels.json").write_text(json.dumps(labels))
    manifest = json.loads((to / "manifest.json").read_text())
    manifest["files"]["edge/labels.json"] = sha256_file(to / "edge/labels.json")
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def test_a_replaced_bundle_is_read_without_a_lost_request(tiny_bundle, tmp_path, stream) -> None:
    renamed(tiny_bundle, tmp_path / "one", "one")
    renamed(tiny_bundle, tmp_path / "two", "two")
    link = tmp_path / "current"
    link.symlink_to("one")
    with edge_server(tmp_path, link, "--watch", 0.2) as server:
        answers, stop = [], threading.Event()

        def ask():
            with httpx.Client() as client:
                while not stop.is_set():
                    url = f"{server.address}/v1/predict"
                    answers.append(client.post(url, content=stream, headers=STREAM))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for target in ("two", "one"):
            count = server.log.read_text().count("tiny was read again")
            (tmp_path / "next").symlink_to(target)
            (tmp_path / "next").replace(link)
            until = time.monotonic() + 20
            while server.log.read_text().count("tiny was read again") == count:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert post(server, stream).json()["top"][0]["label"].startswith(target)
        stop.set()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {200}
        labels = {answer.json()["top"][0]["label"].split()[0] for answer in answers}
        assert labels == {"one", "two"}
        threads_now = server.threads()
        server.process.send_signal(signal.SIGHUP)
        server.logged("tiny was read again: model", 20)
        time.sleep(1)
        assert server.threads() <= threads_now + 1


def test_a_bundle_replaced_by_a_bad_one_stays_as_it_was(damaged, tmp_path, stream) -> None:
    with edge_server(tmp_path, damaged, "--watch", 0.1) as server:
        manifest = (damaged / "manifest.json").read_text()
        (damaged / "manifest.json").write_text("{")
        server.logged("tiny stays as it was: ")
        assert post(server, stream).status_code == 200
        time.sleep(0.5)
        assert server.log.read_text().count("tiny stays as it was") == 1
        (damaged / "manifest.json").write_text(manifest)
        server.logged("tiny was read again")
        assert post(server, stream).status_code == 200


# How it decodes and logs


def test_processes_decode_and_end_with_the_server(tiny_bundle, tmp_path, stream, photo) -> None:
    other = bytes(Device(open_bundle(tiny_bundle)).encode_image(photo))
    with edge_server(tmp_path, tiny_bundle, "--decoders", 2) as server:
        with_threads = post(server, other).json()
        body = httpx.post(
            f"{server.address}/v1/predict", content=batch(other, stream[:-1], stream), headers=BATCH
        ).json()["outputs"]
        assert [output["status"] for output in body] == [200, 400, 200]
        assert body[0]["top"] == with_threads["top"]
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        started = [int(pid) for pid in children.read_text().split()]
        assert len(started) >= 2
        os.kill(max(started), signal.SIGKILL)  # as the system does where memory is short
        until = time.monotonic() + 20
        while post(server, other).status_code != 200:
            assert time.monotonic() < until
        started = [int(pid) for pid in children.read_text().split()]
        server.process.kill()
        server.process.wait()
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in started):
            assert time.monotonic() < until
            time.sleep(0.05)


def test_requests_are_logged_as_json_lines(tiny_bundle, tmp_path, stream) -> None:
    with edge_server(tmp_path, tiny_bundle, "--log-format", "json") as server:
        post(server, stream)
        httpx.get(f"{server.address}/v1/%1b%5b2J%0a{{}}")
        server.end()
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    first, second = (line for line in lines if line["message"] == "request")
    assert (first["status"], first["bytes"], first["streams"]) == (200, len(stream), 1)
    assert first["path"] == "/v1/predict"
    assert (second["status"], second["level"]) == (404, "info")
    assert "\x1b" not in server.log.read_text()
