"""Runs of training that tests start, stop and read."""

import json
from pathlib import Path

from splitzoo.progress import Silent
from splitzoo.zoo.train.plan import Plan
from splitzoo.zoo.train.recipe_files import find_recipe

STEPS = 8
"""In an epoch of the fixture ``data``: 48 images, six at a time."""


class Stop(Silent):
    """Stops a run after some steps, or when it validates."""

    def __init__(self, steps: int, *, in_validation: bool = False) -> None:
        self.left, self.in_validation = steps, in_validation

    def step(self, text):
        self.left -= not text.startswith("loading")
        if self.left == 0:
            raise KeyboardInterrupt

    def track(self, items, title, *, total=None, done=0):
        if self.in_validation and title == "validation":
            raise KeyboardInterrupt
        return iter(items)


def plan_of(recipe, data, run, *, seed=1, **changes) -> Plan:
    """The plan of one model from a recipe's file, with no processes that read images."""
    name, found, spec = find_recipe(recipe)
    return Plan(name, found, spec, data, run, seed=seed, workers=0, **changes)


def log_of(run: Path) -> list[dict]:
    """Return the lines of a run's log, one an epoch."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
