"""The public face of splitrun: names, documentation, and what importing it loads."""

import inspect
import subprocess
import sys

import pytest

import splitrun


@pytest.mark.parametrize("name", splitrun.__all__)
def test_every_public_name_is_there_and_documented(name) -> None:
    value = getattr(splitrun, name)
    assert value.__module__.startswith("splitrun.")
    assert value.__name__ == name
    assert inspect.getdoc(value)
    members = vars(value).items() if inspect.isclass(value) else ()
    functions = [member for key, member in members if callable(member) and not key.startswith("_")]
    assert all(map(inspect.getdoc, functions))


def test_nothing_else_is_public() -> None:
    assert sorted(splitrun.__all__) == splitrun.__all__
    assert sorted(splitrun._HOME) == splitrun.__all__
    known = {"TYPE_CHECKING", "lazy_names"}  # what its own file imports
    others = {
        name
        for name, value in vars(splitrun).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert others - known <= set(splitrun.__all__)
    with pytest.raises(AttributeError, match="no attribute 'abacus'"):
        splitrun.abacus  # noqa: B018  # the access is what is tested


def test_importing_loads_no_torch_and_no_engine() -> None:
    heavy = "{'torch', 'splitzoo', 'pydantic', 'numpy', 'PIL', 'onnxruntime'}"
    code = f"import splitrun, sys; assert not {heavy} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
