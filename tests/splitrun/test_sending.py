"""splitrun send: what is kept, what is sent again, what people are told."""

import argparse
import io
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from edge_server import certificate, edge_server
from edge_servers import EdgeServer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from splitrun import Device, Edge, open_bundle
from splitrun.coding.stream import write_stream
from splitrun.errors import (
    BitstreamError,
    DependencyError,
    ImageError,
    LinkError,
    OutputError,
    SpecError,
)
from splitrun.sending import sender as sender_module
from splitrun.sending import sources as sources_module
from splitrun.sending import spool as spool_module
from splitrun.sending.carriers import CarrierSettings, LinkDownError, open_carrier, read_address
from splitrun.sending.command import add_receive
from splitrun.sending.items import Ids, Item, key_of
from splitrun.sending.jpeg_frames import JpegFrames
from splitrun.sending.links import LINKS, Pace, read_link
from splitrun.sending.outbox import open_outbox
from splitrun.sending.sender import Sender
from splitrun.sending.sources import WatchedFolder, at_most, camera, piped
from splitrun.sending.spool import Spool, SpoolFullError

STREAM = write_stream(b"payload", b"abcd")


def item(number=1, stream=STREAM):
    return Item(f"{number:024x}", f"{number}.jpg", stream, 1.5, f"board/{number}", (640, 480))


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "spool", 10_000)
    yield made
    made.release()


def send_all(spool, url, **options):
    """Empty a spool; return the sender and the lines that it told."""
    told, notes = [], []
    settings = CarrierSettings(read_address(url), Pace(None), device="board", timeout_s=5)
    carrier = open_carrier(settings)
    sender = Sender(spool, carrier, told.append, note=notes.append, **options)
    spool.close()
    sender.start()
    sender.join(30)
    assert not sender.is_alive()
    return sender, told, notes


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


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# What waits


def test_a_spool_gives_the_oldest_first_after_a_crash_too(tmp_path) -> None:
    spool = Spool(tmp_path, 10_000)
    for number in (2, 1, 3):
        spool.put(item(number))
    (tmp_path / f"{4:024x}.unfinished").write_bytes(b"half of a strea")
    device, size = spool.device, sum(file.stat().st_size for file in tmp_path.glob("*.item"))
    assert spool.size_bytes == size
    spool.release()  # as when the program is killed
    again = Spool(tmp_path, 10_000)
    assert (len(again), again.size_bytes, again.device) == (3, size, device)
    assert again.read(again.oldest()) == item(1)
    again.remove(item(1).id)
    assert again.oldest() == item(2).id
    assert not list(tmp_path.glob("*.unfinished"))
    again.release()


def test_a_spool_is_of_one_program(tmp_path, spool) -> None:
    with pytest.raises(OutputError, match="another program sends from this spool"):
        Spool(spool.folder, 10_000)


def test_a_full_spool_keeps_what_it_has(spool, monkeypatch) -> None:
    spool.put(item(1, write_stream(bytes(9000), b"abcd")))
    with pytest.raises(SpoolFullError, match=r"holds 9\.1 kB, and its limit is 10\.0 kB"):
        spool.put(item(2, write_stream(bytes(1000), b"abcd")))
    assert len(spool) == 1

    def no_space(_number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module.os, "fsync", no_space)
    with pytest.raises(SpoolFullError, match="no space left on device"):
        spool.put(item(3))
    assert [path.suffix for path in spool.folder.glob("0*")] == [".item"]


@given(st.binary(max_size=200))
def test_any_bytes_are_an_item_or_damaged(content) -> None:
    try:
        found = Item.of_bytes("0" * 24, content)
    except BitstreamError:
        return
    assert Item.of_bytes("0" * 24, found.to_bytes()) == found


def test_ids_rise_though_the_clock_does_not(monkeypatch) -> None:
    times = iter([5, 5, 3, 9])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    ids = Ids()
    assert [int(ids.next()[:16], 16) for _ in range(4)] == [5, 6, 7, 9]
    assert key_of("größe 7", "01") == "gr--e-7/01"


# What is sent


def test_what_was_not_acknowledged_is_sent_again_with_its_key(spool) -> None:
    with EdgeServer([503, (429, {"Retry-After": "1"}), "hang up"]) as server:
        spool.put(item(1))
        spool.put(item(2))
        began = time.monotonic()
        sender, told, notes = send_all(spool, server.url)
    assert [request.key for request in server.requests] == ["board/1"] * 4 + ["board/2"]
    assert {request.body for request in server.requests} == {STREAM}
    assert time.monotonic() - began >= 1.25
    assert [(line["image"], line.get("attempts")) for line in told] == [("1.jpg", 4), ("2.jpg", 1)]
    assert told[0]["answer"] == {"bytes": len(STREAM)}
    assert told[0]["sent_bytes"] > len(STREAM) + 150
    assert (sender.answered, sender.refused, len(spool)) == (2, 0, 0)
    assert "503: Said so. Trying again; 2 streams in the spool." in notes[0]
    assert notes[1] == "The link is back after 4 attempts."


def test_a_refused_stream_does_not_hold_up_the_others(spool) -> None:
    spool.put(item(1))
    spool.put(item(2))
    (spool.folder / f"{item(1).id}.item").write_bytes(b"a card that fails")
    with EdgeServer([400]) as server:
        spool.put(item(3))
        sender, told, _ = send_all(spool, server.url)
    assert [("error" in line, "answer" in line) for line in told] == [
        *((True, False), (True, False), (False, True))
    ]
    assert "is damaged" in told[0]["error"]["message"]
    assert (sender.answered, sender.refused, sender.failure) == (1, 2, None)


def test_a_server_that_fails_at_one_stream_is_not_asked_for_ever(spool, monkeypatch) -> None:
    monkeypatch.setattr(sender_module, "_FIRST_PAUSE_S", 0.01)
    spool.put(item(1))
    spool.put(item(2))
    with EdgeServer([500] * 5) as server:
        sender, told, _ = send_all(spool, server.url)
    assert [len(told), sender.answered, sender.refused] == [2, 1, 1]
    assert [request.key for request in server.requests] == ["board/1"] * 5 + ["board/2"]


@pytest.mark.parametrize(
    ("status", "own", "saying"),
    [
        (401, "", "refuses the token"),
        (404, "", "answers 404"),
        (409, "61626364", "answers 409: Said so"),
    ],
)
def test_what_no_stream_gets_past_ends_it_and_keeps_all(spool, status, own, saying) -> None:
    spool.put(item(1))
    spool.put(item(2))
    with EdgeServer([status]) as server:
        sender, told, _ = send_all(spool, server.url, own_model=own)
    assert isinstance(sender.failure, LinkError)
    assert saying in str(sender.failure)
    assert (len(spool), told) == (2, [])


def test_streams_of_an_earlier_model_are_refused_one_by_one(spool) -> None:
    spool.put(item(1))
    with EdgeServer([409]) as server:
        sender, told, _ = send_all(spool, server.url, own_model="ffffffff")
    assert (sender.failure, len(spool), told[0]["image"]) == (None, 0, "1.jpg")


def test_retries_end_where_they_are_to(spool) -> None:
    spool.put(item(1))
    sender, _, notes = send_all(spool, f"http://127.0.0.1:{free_port()}", retry_for_s=0.8)
    assert isinstance(sender.failure, LinkDownError)
    assert "cannot be reached: connection refused" in str(sender.failure)
    assert (len(notes), len(spool)) == (1, 1)


def test_another_program_behind_the_address(spool) -> None:
    spool.put(item(1))
    with EdgeServer([200]) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json, "dumps", lambda *_words: "[]")
        sender, _, _ = send_all(spool, server.url)
    assert "answers, but not as an edge server does" in str(sender.failure)


@pytest.mark.parametrize(
    ("words", "error"), [([], ZeroDivisionError), (["--certificates", "none"], SpecError)]
)
def test_an_error_ends_the_sender_and_frees_the_spool(tmp_path, words, error) -> None:
    parser = argparse.ArgumentParser()
    add_receive(parser.add_subparsers())
    there = ["--to", f"https://127.0.0.1:{free_port()}", "--spool", str(tmp_path)]
    arguments = parser.parse_args(["receive", "--from", "udp://127.0.0.1:1", *there, *words])
    threads = threading.enumerate()
    with pytest.raises(error), open_outbox(arguments, live=True) as outbox:
        outbox.spool.put(item(1))
        raise ZeroDivisionError
    assert threading.enumerate() == threads
    again = Spool(tmp_path, 10_000)
    assert len(again) == (error is ZeroDivisionError)
    again.release()


# Links


def test_links_are_as_their_sources_say() -> None:
    # 13 bytes of LoRaWAN's own a frame of 222, and a CRC: 640 bytes are 3 frames of 5,470 bit/s,
    # each after a preamble and header of 20.736 ms.
    lora = LINKS.get("lora")
    assert lora.seconds_on_air(640) == pytest.approx(8 * (640 + 45) / 5470 + 3 * 0.020736)
    # By Semtech's formula for the time on the air (AN1200.13), SF7, 125 kHz, 4/5, explicit header
    # and CRC: 8 + ⌈(8 · 235 - 28 + 28 + 16) / 28⌉ · 5 symbols of 1.024 ms.
    symbols = 8 + math.ceil((8 * 235 - 4 * 7 + 28 + 16) / (4 * 7)) * 5
    assert lora.seconds_on_air(222) == pytest.approx((12.25 + symbols) * 1.024e-3, rel=0.005)
    # Zigbee: a frame of 133 bytes at 250 kbit/s is 4.256 ms, then 0.544 ms.
    assert LINKS.get("zigbee").seconds_on_air(82) == pytest.approx(4.8e-3)
    # The paper's rate is LoRa's at SF6, 500 kHz, 4/5.
    assert LINKS.get("lora-paper").bits_per_second == 6 * 500e3 / 2**6 * 4 / 5
    assert all(link.source and link.duty_cycle <= 1 for link in map(LINKS.get, LINKS.names()))
    assert read_link("37.5kbps").seconds_on_air(750) == pytest.approx(0.16)
    assert [read_link(text).bits_per_second for text in ("9600", "2Mbit/s")] == [9600, 2e6]
    for text in ("fast", "0", "-1kbps", "1e9"):
        with pytest.raises(SpecError, match="neither a link nor a rate"):
            read_link(text)


def test_a_pace_is_kept() -> None:
    now = [0.0]
    pace = Pace(read_link("8kbps"), lambda: now[0], lambda wait: now.__setitem__(0, now[0] + wait))
    for piece in pace.pieces(bytes(1000)):
        pace.keep(len(piece))
    assert now[0] == pytest.approx(1.0)
    now[0] = 5.0  # what was not used is not saved up
    pace.keep(500)
    assert now[0] == pytest.approx(5.5)
    lora = Pace(LINKS.get("lora"), lambda: now[0], lambda wait: now.__setitem__(0, now[0] + wait))
    lora.keep(0, frames=2)
    assert now[0] == pytest.approx(5.5 + 2 * 20.25 * 1.024e-3)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:80", "ftp://host", "udp://host", "http://", "http://h:x"]
)
def test_addresses_that_are_none(text) -> None:
    with pytest.raises(SpecError, match="no address"):
        read_address(text)


# Images


def jpeg(size, comment=b""):
    content = io.BytesIO()
    Image.effect_noise(size, 50).save(content, "JPEG", comment=comment)
    return content.getvalue()


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content, step):
        self.content, self.step = io.BytesIO(content), step

    def read(self, size=-1):
        return self.content.read(min(size, self.step))


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_jpeg_files_in_a_pipe(step) -> None:
    # The comment of the second holds a whole JPEG, as a thumbnail would be.
    files = [jpeg((40, 30)), jpeg((16, 16), comment=jpeg((8, 8))), jpeg((64, 48))]
    between = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    assert list(JpegFrames(Trickle(between.join(files), step))) == files
    with pytest.raises(ImageError, match="frame 2: standard input ends within it"):
        list(JpegFrames(Trickle(files[0] + files[1][:-5], step)))
    assert list(JpegFrames(Trickle(b"", step))) == []
    with pytest.raises(ImageError, match="it holds no JPEG files"):
        list(JpegFrames(Trickle(bytes(500), step)))


def test_raw_frames_in_a_pipe() -> None:
    frames = os.urandom(2 * 3 * 4 * 2)
    shots = list(piped(Trickle(frames, 5), (4, 2)))
    assert [shot.image.tobytes() for shot in shots] == [frames[:24], frames[24:]]
    assert shots[0].image.shape == (2, 4, 3)
    with pytest.raises(ImageError, match=r"frame 2: standard input ends after 10 of its 24 bytes"):
        list(piped(Trickle(frames[:34], 5), (4, 2)))


def test_a_camera_gives_what_opencv_sees(tmp_path, monkeypatch) -> None:
    """OpenCV opens numbered files as it does a camera; it gives blue first, ``camera`` red."""
    pytest.importorskip("cv2", reason="needs opencv-python-headless")
    frames = [os.urandom(12 * 16 * 3) for _ in range(3)]
    for number, frame in enumerate(frames):
        Image.frombytes("RGB", (16, 12), frame).save(tmp_path / f"{number}.png")
    shots = camera(str(tmp_path / "%d.png"))
    assert [next(shots).image.tobytes() for _ in frames] == frames
    with pytest.raises(ImageError, match=r"nothing more after 3 frames\.\nWas it unplugged\?$"):
        next(shots)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match="needs OpenCV"):
        next(camera("0"))


def test_at_most_so_many_a_second() -> None:
    now, shots = [0.0], []

    def frames():
        for number in range(20):
            now[0] = number / 10
            yield type("Frame", (), {"file": False, "number": number})

    shots = [shot.number for shot in at_most(frames(), 4, lambda: now[0])]
    assert shots == [0, 3, 5, 8, 10, 13, 15, 18]


def test_a_folder_is_watched_and_remembered(tmp_path) -> None:
    folder, memory = tmp_path / "photos", tmp_path / "watched"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg((8, 8)))
    watched = WatchedFolder(folder, memory, 0.01)
    shots = iter(watched)
    first = next(shots)
    watched.remember(first)
    (folder / "b.jpg").write_bytes(b"")
    second = next(shots)
    assert [first.image.name, second.image.name] == ["a.jpg", "b.jpg"]
    # Not remembered: a later run gives it again, under the same id.
    assert next(iter(WatchedFolder(folder, memory, 0.01))).id == second.id


def test_looks_at_a_large_folder_leave_time_for_other_work(tmp_path, monkeypatch) -> None:
    class Clock:
        """A clock after which each look takes a second."""

        now, pauses = 0.0, []

        def monotonic(self):
            self.now += 1
            return self.now

        def time(self):
            return self.now

        def sleep(self, seconds):
            self.pauses.append(seconds)
            if len(self.pauses) == 1:
                (tmp_path / "photos" / "a.jpg").write_bytes(b"x")

    (tmp_path / "photos").mkdir()
    watched = WatchedFolder(tmp_path / "photos", tmp_path / "watched", 0.5)
    monkeypatch.setattr(sources_module, "time", clock := Clock())
    next(iter(watched))
    assert clock.pauses == [10.0, 10.0]


# The command


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
