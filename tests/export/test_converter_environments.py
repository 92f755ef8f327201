"""Environments of converters: made, missing, and what fails in them."""

import sys
from pathlib import Path

import pytest

from splitrun.errors import BundleError, DependencyError
from splitzoo import export
from splitzoo.export import environments
from splitzoo.export.environments import Environment
from splitzoo.export.targets import TARGETS


def test_an_environment_that_is_not_made_is_told_with_its_command(
    tiny_model, monkeypatch, tmp_path
) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(environments, "user_cache_path", lambda name: tmp_path / name)
    with pytest.raises(DependencyError, match="an environment of its own") as caught:
        export.split(tiny_model, tmp_path / "b", target="litert")
    assert caught.value.next_step == "splitzoo export prepare litert"
    assert list(tmp_path.iterdir()) == []
    assert TARGETS.get("litert").missing() == ("litert (splitzoo export prepare litert)",)


@pytest.mark.slow
def test_what_cannot_be_installed_leaves_no_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(environments, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    apart = Environment("litert", ("splitzoo-has-no-such-package==1",), (3, 11))
    with pytest.raises(DependencyError, match=r"litert cannot be made: .*splitzoo-has-no-such"):
        apart.make()
    assert not apart.folder.exists()
    assert not apart.is_made


def test_no_python_is_new_enough(monkeypatch) -> None:
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    with pytest.raises(DependencyError, match=r"needs Python 3\.99 or later") as caught:
        Environment("litert", (), (3, 99))._steps()
    assert "pip install uv" in caught.value.next_step


def test_a_converter_that_fails_is_told_by_its_last_line(monkeypatch, tmp_path) -> None:
    apart = Environment("litert", (), (3, 11))
    monkeypatch.setattr(Environment, "is_made", True)
    monkeypatch.setattr(Environment, "_python", Path(sys.executable))
    (tmp_path / "convert.py").write_text("import sys; sys.exit('Conv is unknown')")
    monkeypatch.setattr(environments, "_CONVERTERS", tmp_path)
    with pytest.raises(BundleError, match=r"convert cannot convert graph: Conv is unknown"):
        apart.run("convert", "graph.onnx")
