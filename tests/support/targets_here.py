"""Targets that can be exported to here."""

import pytest

from splitzoo.export.targets import TARGETS


def needs(target: str) -> None:
    """Skip the test where the packages or the environment of a target are missing."""
    for one in (TARGETS.get(target).device, TARGETS.get(target).edges[0]):
        for package in one.packages:
            pytest.importorskip(package, reason=f"the target {target} needs {package}")
    if missing := TARGETS.get(target).missing():
        pytest.skip(f"the target {target} needs {', '.join(missing)}")
