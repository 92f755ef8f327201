"""What commands say of long work where no terminal shows bars."""

import itertools

from splitzoo import console


def test_a_line_every_half_minute_says_how_far_the_work_is(monkeypatch, capsys) -> None:
    clock = itertools.count(0, 20)  # each item takes twenty seconds
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.Console().progress() as progress:
        for number in progress.track(range(5), "epoch 1", total=200, done=100):
            progress.step(f"loss {number}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "epoch 1: 102 of 200; loss 1",
        "epoch 1: 104 of 200; loss 3",
    ]
