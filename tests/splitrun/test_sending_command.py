"""splitrun send as a process: what it answers, keeps and says."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edge_server import certificate, edge_server
from edge_servers import EdgeServer
from free_port import free_port
from PIL import Image

from splitrun import Device, Edge, open_bundle


def command(bundle, tmp_path, *words, **options):
    """Start ``splitrun send`` in a process of its own."""
    words = ["send", "--spool", tmp_path / "spool", *words]
    return subprocess.Popen(
        [sys.executable, "-m", "splitrun", "--bundle", bundle, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def outcome(process, content=None):
    out, err = process.communicate(content, timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def test_photographs_are_answered_in_order(tiny_bundle, tmp_path, photos) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no image")
    device = Device(open_bundle(tiny_bundle))
    with EdgeServer() as server:
        process = command(
            tiny_bundle, tmp_path, "--to", server.url, photos[0], tmp_path / "no.jpg", photos[1]
        )
        code, lines, err = outcome(process)
    assert code == 1
    assert "1 of 3 images could not be used" in err
    sent = {line["image"]: line for line in lines}
    assert "error" in sent[str(tmp_path / "no.jpg")]
    assert [request.body for request in server.requests] == [
        bytes(device.encode_image(photo)) for photo in photos[:2]
    ]
    assert sent[str(photos[0])]["answer"] == {"bytes": len(server.requests[0].body)}


def test_frames_of_a_pipe(tiny_bundle, tmp_path) -> None:
    frames = [Image.effect_noise((32, 24), 40 + step).convert("RGB") for step in range(3)]
    device = Device(open_bundle(tiny_bundle))
    with EdgeServer() as server:
        process = command(
            tiny_bundle, tmp_path, "--to", server.url, "--size", "32x24", "-", stdin=subprocess.PIPE
        )
        code, lines, _ = outcome(process, b"".join(frame.tobytes() for frame in frames))
    assert (code, [line["image"] for line in lines]) == (0, ["frame 1", "frame 2", "frame 3"])
    assert [request.body for request in server.requests] == list(map(device.encode_image, frames))


def test_a_killed_sender_loses_nothing(tiny_bundle, tmp_path, photos) -> None:
    """The link is down, the sender is killed, another one sends what it left."""
    port = free_port()
    process = command(tiny_bundle, tmp_path, "--to", f"http://127.0.0.1:{port}", *photos[:3])
    deadline = time.monotonic() + 30
    while len(list((tmp_path / "spool").glob("*.item"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    with EdgeServer(port=port) as server:
        code, lines, _ = outcome(command(tiny_bundle, tmp_path, "--to", server.url))
    assert (code, [line["image"] for line in lines]) == (0, list(map(str, photos[:3])))
    assert not list((tmp_path / "spool").glob("*.item"))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_keeps_the_spool_and_says_so(tiny_bundle, tmp_path, photos, sent, code) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photos[0].read_bytes())
    address = f"http://127.0.0.1:{free_port()}"
    process = command(tiny_bundle, tmp_path, "--to", address, "--watch", tmp_path / "photos")
    deadline = time.monotonic() + 30
    while not list((tmp_path / "spool").glob("*.item")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    found, lines, err = outcome(process)
    assert (found, lines) == (code, [])
    assert "Stopped. Streams without an answer are kept in" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "spool").glob("*.item"))) == 1


def test_streams_go_over_tls_where_the_certificate_is_known(tiny_bundle, tmp_path, photos) -> None:
    cert, key = certificate(tmp_path)
    (photo,) = photos[:1]
    bundle = open_bundle(tiny_bundle)
    expected = Edge(bundle).predict(Device(bundle).encode_image(photo), top=1).top[0]
    with edge_server(tmp_path, tiny_bundle, "--cert", cert, "--key", key) as server:
        words = ["--to", server.address, "--retry-for", "0", photo]
        found, _, err = outcome(command(tiny_bundle, tmp_path, *words))
        assert (found, "is not trusted: self" in err) == (1, True)
        assert "--certificates FILE" in err
        # It was kept, and goes with the next.
        found, lines, err = outcome(command(tiny_bundle, tmp_path, *words, "--certificates", cert))
        assert (found, len(lines)) == (0, 2), err
        assert [line["answer"]["top"][0]["index"] for line in lines] == [expected.index] * 2


@pytest.mark.parametrize(
    ("words", "code", "saying"),
    [
        (["--to", "nowhere", "a.jpg"], 1, "'nowhere' is no address to use"),
        (["--to", "http://127.0.0.1:1", "--retry-for", "0", "PHOTO"], 1, "cannot be reached"),
        (["--to", "http://127.0.0.1:1", "--camera", "77"], 1, "camera"),
        (["--to", "http://127.0.0.1:1", "--link", "fast", "PHOTO"], 1, "neither a link nor a rate"),
        (["--to", "http://127.0.0.1:1", "--token-file", "none", "PHOTO"], 1, "token in none"),
        (
            ["--to", "https://127.0.0.1:1", "--certificates", "none", "PHOTO"],
            1,
            "cannot be read",
        ),
        (["--to", "http://127.0.0.1:1", "--retry-for", "soon"], 2, "'soon' is not a number"),
        (["--to", "http://127.0.0.1:1", "--spool-limit", "nan"], 2, "nan is not a number above 0"),
        (["--to", "http://127.0.0.1:1", "--top", "1001"], 2, "1001 is not between 1 and 1,000"),
        (["--to", "http://127.0.0.1:1", "--size", "640"], 2, "'640' is not of the form 640x480"),
        (["--to", "http://127.0.0.1:1", "--watch", "none"], 1, "none: it is not a folder"),
        (["--to", "http://127.0.0.1:1", "--watch", ".", "PHOTO"], 2, "Images come from one place"),
        (["--to", "http://127.0.0.1:1"], 0, "nothing waits in the spool"),
    ],
)
def test_what_is_wrong_is_said_once(tiny_bundle, tmp_path, photo, words, code, saying) -> None:
    words = [photo if word == "PHOTO" else word for word in words]
    found, _, err = outcome(command(tiny_bundle, tmp_path, *words))
    assert (found, err.count("error:")) == (code, int(code > 0))
    assert saying in err
    assert "Traceback" not in err


def test_memory_and_time(tiny_bundle, tmp_path, photo) -> None:
    """The first answer takes at most 1.5 s of processor time; waiting takes at most 120 MB."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photo.read_bytes())
    with EdgeServer() as server:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, (line,), _ = outcome(command(tiny_bundle, tmp_path, "--to", server.url, photo))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = ["--to", server.url, "--watch", tmp_path / "photos"]
        watching = command(tiny_bundle, tmp_path, *words)
        watching.stdout.readline()
        status = Path(f"/proc/{watching.pid}/status").read_text()
        watching.terminate()
        watching.communicate(timeout=30)
    assert (code, "answer" in line) == (0, True)
    assert int(status.split("VmRSS:")[1].split()[0]) / 1000 <= 120
    # Others may be at work here, so not by the clock.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
