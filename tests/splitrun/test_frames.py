"""Streams in frames: what is acknowledged is what was sent, whatever the line does."""

import binascii
import os
import pty
import random
import socket
import threading
import tty

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossy_line import LossyLine

from splitrun.coding.stream import write_stream
from splitrun.errors import LinkError, SpecError
from splitrun.sending.carriers import LinkDownError, RefusedError, read_address
from splitrun.sending.frame_carrier import FrameCarrier
from splitrun.sending.frame_lines import open_line
from splitrun.sending.frames import (
    ASKING,
    HERE,
    PART,
    WHOLE,
    Assembler,
    Frame,
    cut,
    digest_of,
    missing,
    read_frame,
    tag_of,
)
from splitrun.sending.items import Item
from splitrun.sending.links import Pace
from splitrun.sending.receiver import FrameSource


def stream_of(size, seed=0):
    return write_stream(random.Random(seed).randbytes(size), b"abcd")


def item_of(stream, name="01"):
    return Item(name * 12, "photo.jpg", stream, 0.0, f"board/{name}")


class Kept:
    """What an assembler gave, in order."""

    def __init__(self, room=True):
        self.streams, self.room = [], room

    def __call__(self, sender, tag, stream):
        if self.room:
            self.streams.append(stream)
        return self.room


def test_a_frame_is_laid_out_as_the_document_says() -> None:
    frame = Frame(ASKING, b"TTTT", 1, 2, b"part").to_bytes()
    assert frame[:11] == b"\x02TTTT\x01\x02part"
    # CRC-16/CCITT-FALSE; its check value is that of the catalogue of Greg Cook.
    assert binascii.crc_hqx(b"123456789", 0xFFFF) == 0x29B1
    assert int.from_bytes(frame[11:], "big") == binascii.crc_hqx(frame[:11], 0xFFFF)
    assert read_frame(frame) == (ASKING, b"TTTT", 1, 2, b"part")
    here = Frame(HERE, b"TTTT", 0, 9, b"\x05\x02").to_bytes()
    assert missing(read_frame(here)) == [1, 3, 4, 5, 6, 7, 8]  # bits 0, 2 and 9 are set


@given(st.binary(max_size=80))
def test_no_bytes_break_the_receiver(content) -> None:
    kept = Kept()
    Assembler(kept).receive("anyone", content)
    Assembler(kept).receive("anyone", Frame(PART, b"TTTT", 0, 0, content).to_bytes())
    assert kept.streams == []


@settings(max_examples=150)
@given(
    size=st.integers(0, 4000),
    frame_bytes=st.integers(40, 300),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    damage=st.sampled_from([0.0, 0.1]),
    double=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 1 << 32),
)
def test_what_is_acknowledged_is_bit_exact(size, frame_bytes, loss, damage, double, seed) -> None:
    stream, kept = stream_of(size, seed), Kept()
    options = {"loss": loss, "damage": damage, "double": double, "seed": seed}
    line = LossyLine(Assembler(kept), frame_bytes=frame_bytes, **options)
    carrier = FrameCarrier(line, pace=Pace(None), timeout_s=1e9, clock=line.clock)
    try:
        delivery = carrier.deliver(item_of(stream))
    except LinkDownError:
        assert loss or damage
        return
    except RefusedError as error:
        assert "frames of" in str(error) and len(stream) > 256 * (frame_bytes - 9)
        return
    assert kept.streams == [stream]
    assert delivery.answer["acknowledged"] is True
    assert delivery.answer["parts"] == -(-len(stream) // (frame_bytes - 9))


def test_lora_that_loses_a_tenth_of_its_frames() -> None:
    """200 images of 300 to 3,000 bytes at LoRaWAN's data rate 5."""
    kept, sizes = Kept(), random.Random(1)
    line = LossyLine(Assembler(kept), loss=0.1, damage=0.01, seed=2)
    carrier = FrameCarrier(line, pace=Pace(None), clock=line.clock)
    streams = [stream_of(sizes.randrange(300, 3000), seed) for seed in range(200)]
    acknowledged, parts = [], 0
    for number, stream in enumerate(streams):
        for _ in range(5):  # as the sender does
            try:
                parts += carrier.deliver(item_of(stream, f"{number:02x}"[-2:])).answer["parts"]
                acknowledged.append(stream)
                break
            except LinkDownError:
                continue
    assert acknowledged == streams == kept.streams
    assert 0.08 < line.lost / (line.frames * 1.2) < 0.14
    # Selective: a tenth more, questions and what the lost answers cost; not whole streams again.
    assert line.frames < 1.5 * parts


def test_parts_that_came_before_a_crash_are_not_sent_again() -> None:
    stream, kept = stream_of(2000), Kept()
    assembler = Assembler(kept)
    parts, tag = cut(stream, 222), tag_of("board/01")
    for index in (0, 1, 3, 4, 5, 6):
        assert (
            assembler.receive("device", Frame(PART, tag, index, 9, parts[index]).to_bytes()) is None
        )
    line = LossyLine(assembler, delays=(0.1, 0.1))
    delivery = FrameCarrier(line, pace=Pace(None), clock=line.clock).deliver(item_of(stream))
    # Part 9 asks; then 2, 7 and 8 are sent.
    assert kept.streams == [stream]
    assert delivery.answer["parts"] == 10
    assert delivery.answer["frames"] == 4
    again = FrameCarrier(line, pace=Pace(None), clock=line.clock).deliver(item_of(stream))
    assert kept.streams == [stream]
    assert again.answer["acknowledged"]


def test_what_has_no_room_is_not_acknowledged_and_taken_later() -> None:
    kept = Kept(room=False)
    line = LossyLine(Assembler(kept))
    carrier = FrameCarrier(line, pace=Pace(None), clock=line.clock)
    with pytest.raises(LinkDownError, match="Nobody acknowledges"):
        carrier.deliver(item_of(stream_of(500)))
    kept.room = True
    assert carrier.deliver(item_of(stream_of(500))).answer["acknowledged"]
    assert kept.streams == [stream_of(500)]


def test_the_receiver_holds_a_bounded_number_of_bytes() -> None:
    assembler = Assembler(Kept(), most_bytes=100_000)
    for number in range(5000):
        tag = number.to_bytes(4, "big")
        assembler.receive("device", Frame(PART, tag, 0, 9, bytes(200)).to_bytes())
    assert len(assembler._open) == 100_000 // (200 + 1024)
    assert assembler._open_bytes == 200 * len(assembler._open)


def test_a_tag_that_is_taken_is_told_by_the_digest() -> None:
    first, second, kept = stream_of(300, 1), stream_of(300, 2), Kept()
    assembler = Assembler(kept)
    assembler.receive("device", Frame(PART, tag_of("board/01"), 0, 1, first[:200]).to_bytes())
    whole = assembler.receive(
        "device", Frame(PART, tag_of("board/01"), 1, 1, first[200:]).to_bytes()
    )
    assert read_frame(whole) == (WHOLE, tag_of("board/01"), 0, 0, digest_of(first))
    line = LossyLine(assembler)
    FrameCarrier(line, pace=Pace(None), clock=line.clock).deliver(item_of(second))
    assert kept.streams == [first, second]


def test_too_many_frames_and_too_small_ones() -> None:
    line = LossyLine(Assembler(Kept()), frame_bytes=51)
    with pytest.raises(RefusedError, match=r"20,012 bytes; 256 frames of 51 bytes carry 10,752"):
        FrameCarrier(line, pace=Pace(None)).deliver(item_of(stream_of(20_000)))
    with pytest.raises(SpecError, match="Frames of 20 bytes are too small; 40 are the least"):
        open_line(read_address("udp://127.0.0.1:9"), 20)


def listening(line, kept):
    """Answer on a line in a thread; setting the event ends it."""
    over = threading.Event()

    class OverError(Exception):
        pass

    def check():
        if over.is_set():
            raise OverError

    def work():
        with pytest.raises(OverError):
            FrameSource(line).listen(lambda sender, name, stream: kept(sender, name, stream), check)

    thread = threading.Thread(target=work)
    thread.start()
    return over, thread


def test_udp_on_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, kept = read_address(f"udp://127.0.0.1:{port}"), Kept()
    carrier = FrameCarrier(open_line(address, 100), pace=Pace(None), timeout_s=2)
    with pytest.raises(LinkDownError):
        carrier.deliver(item_of(stream_of(3000)))
    over, thread = listening(open_line(address, 100, listen=True), kept)
    delivery = carrier.deliver(item_of(stream_of(3000)))
    with pytest.raises(LinkError, match="cannot be opened: address already in use"):
        open_line(address, listen=True)
    over.set()
    thread.join()
    carrier.close()
    assert kept.streams == [stream_of(3000)]
    assert delivery.sent_bytes >= 3012 + 9 * delivery.answer["parts"]


def test_a_serial_line_over_two_terminals() -> None:
    """Two pseudo-terminals, joined by a thread, with noise before the first frame."""
    pytest.importorskip("serial", reason="needs pyserial")
    (near, near_name), (far, far_name) = terminal(), terminal()
    os.write(far, b"noise \x00 of a radio")
    for source, sink in ((near, far), (far, near)):
        threading.Thread(target=joined, args=(source, sink), daemon=True).start()
    kept = Kept()
    lines = [
        open_line(read_address(f"serial://{name}?baud=115200"), listen=listens)
        for name, listens in ((near_name, False), (far_name, True))
    ]
    over, thread = listening(lines[1], kept)
    carrier = FrameCarrier(lines[0], pace=Pace(None), timeout_s=20)
    streams = [stream_of(size, size) for size in (1, 700, 5000)]
    for number, stream in enumerate(streams):
        carrier.deliver(item_of(stream, f"{number:02x}"))
    over.set()
    thread.join()
    carrier.close()
    assert kept.streams == streams


def test_a_serial_line_that_is_not_there() -> None:
    pytest.importorskip("serial", reason="needs pyserial")
    line = open_line(read_address("serial:///dev/ttyNothing"))
    with pytest.raises(LinkDownError, match=r"/dev/ttyNothing cannot be used: .*no such file"):
        line.send(b"frame")


def terminal():
    controller, terminal = pty.openpty()
    tty.setraw(controller)
    tty.setraw(terminal)
    return controller, os.ttyname(terminal)


def joined(source, sink):
    while True:
        os.write(sink, os.read(source, 4096))
