"""Senders: what is sent, what is sent again, and what ends them."""

import argparse
import json
import threading
import time

import pytest
from edge_servers import EdgeServer
from free_port import free_port
from sent_items import STREAM, item

from splitrun.errors import LinkError, SpecError
from splitrun.sending import sender as sender_module
from splitrun.sending.carriers import CarrierSettings, LinkDownError, open_carrier, read_address
from splitrun.sending.command import add_receive
from splitrun.sending.links import Pace
from splitrun.sending.outbox import open_outbox
from splitrun.sending.sender import Sender
from splitrun.sending.spool import Spool


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
