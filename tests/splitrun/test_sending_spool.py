"""What waits to be sent: the spool and its items."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sent_items import item

from splitrun.coding.stream import write_stream
from splitrun.errors import BitstreamError, OutputError
from splitrun.sending import spool as spool_module
from splitrun.sending.items import Ids, Item, key_of
from splitrun.sending.spool import Spool, SpoolFullError


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
