"""What tests of exports share."""

from pathlib import Path

import pytest
from targets_here import needs

from splitzoo import export


@pytest.fixture(scope="session")
def bundles(tiny_model, tiny_bundle, tmp_path_factory):
    """A bundle of the tiny model for each target, made once. Shared: tests leave it as it is."""
    folder, made = tmp_path_factory.mktemp("targets"), {("cpu",): tiny_bundle}

    def bundle(target: str, **options) -> Path:
        needs(target)
        key = (target, *sorted(options.items()))
        if key not in made:
            made[key] = folder / f"{len(made)}"
            export.split(tiny_model, made[key], target=target, **options)
        return made[key]

    return bundle
