"""A model beside another on the same images."""

import json

import numpy as np
import pytest
from made_data import made_image

from splitzoo import zoo
from splitzoo.profile.paired import pair


def test_the_interval_is_that_of_the_formula_by_hand():
    ours = [True] * 80 + [False] * 20
    theirs = [True] * 75 + [False] * 5 + [True] * 15 + [False] * 5
    found = pair(ours, theirs, against="other", model_id="00000000")
    assert (found.images, found.gained, found.lost) == (100, 5, 15)
    assert found.difference == pytest.approx(-0.10)
    # (5.5 − 15.5) / 102 ± 1.96 · √(21 − 100 / 102) / 102
    assert found.interval == pytest.approx((-0.18408, -0.01200), abs=1e-4)
    assert found.said().startswith("-10.0 points (-18.4 to -1.2 at 95%; 15 images lost, 5 gained)")


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    random, held, images = np.random.default_rng(0), 0, 500
    for _ in range(400):
        draw = random.random(images)
        found = pair(draw < 0.86, (draw < 0.84) | (draw > 0.93), against="", model_id="")
        low, high = found.interval
        held += low <= 0.86 - 0.91 <= high
    assert held >= 370  # 380 are expected; fewer than 370 would be 2.3 deviations off


def test_from_the_command_line(splitzoo, tmp_path):
    folder = tmp_path / "val"
    for number, label in enumerate(zoo.get_spec("flowers-regnetx_002-png").labels):
        (folder / label).mkdir(parents=True)
        for seed in range(3):
            made_image("discs", 10 * number + seed).save(folder / label / f"{seed}.png")
    model, other = "flowers-splittable_regnetx_002-fp-beta3", "flowers-regnetx_002-png"
    words = ("profile", "accuracy", model, "--data", folder, "--against", other)
    code, _, err = splitzoo(*words, "-o", tmp_path / "one.json", "-o", tmp_path / "one.csv")
    assert code == 0, err
    code, _, err = splitzoo(
        "profile", "accuracy", other, "--data", folder, "-o", tmp_path / "two.csv"
    )
    assert code == 0, err
    right = [
        [row.endswith("True") for row in (tmp_path / name).read_text().splitlines()[1:]]
        for name in ("one.csv", "two.csv")
    ]
    paired = json.loads((tmp_path / "one.json").read_text())["paired"]
    counted = pair(*right, against=other, model_id=zoo.load(other).digest().hex()[:8])
    assert paired == counted.model_dump()
