"""The folders are the architecture; what the folders promise is checked here."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import from those before it, and from the modules at the root that stand in the first.
ORDER = (
    ("splitrun",),
    ("documents", "progress"),
    ("zoo",),
    ("export",),
    ("profile",),
    ("cards",),
    ("demo", "demo_link", "publish", "sweep", "cli", "__main__"),
)
# Presentation of the command line; only files of commands, and those in a folder of them, use it.
FRONT = "console"
COMMANDS = ("cli.py", "demo.py", "demo_link.py", "publish.py", "sweep.py")
EXTRAS = re.compile(r"(splitzoo|splitrun)\[([a-z0-9,-]+)\]")
PACKAGES = ("splitrun", "zoo", "export", "profile", "cards")


def sources() -> list[Path]:
    folders = [ROOT, *(p for name in PACKAGES for p in (ROOT / name, *(ROOT / name).rglob("*/")))]
    return sorted(
        path
        for folder in folders
        if "__pycache__" not in folder.parts and "generated" not in folder.parts
        for path in folder.glob("*.py")
    )


def rank(part: str) -> int:
    return next(level for level, names in enumerate(ORDER) if part in names)


def imported_parts(path: Path) -> set[str]:
    """Return the top-level parts of splitzoo that a file imports, at any depth of its code."""
    package = ("splitzoo", *path.relative_to(ROOT).parts[:-1])
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) and any(a.name.startswith("splitrun") for a in node.names):
            parts.add("splitrun")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("splitrun"):
            parts.add("splitrun")
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        names = [word for word in base if word][1:]
        parts.update(names[:1] or {alias.name for alias in node.names})
    return parts - {"__version__"}


def listed_packages(folder: Path) -> set[str]:
    document = tomllib.loads((folder / "pyproject.toml").read_text())
    return set(document["tool"]["setuptools"]["packages"])


def test_packages_in_pyproject_are_the_folders_with_code() -> None:
    folders = {path.parent.relative_to(ROOT).parts for path in sources()}
    runtime = {".".join(parts) for parts in folders if parts[:1] == ("splitrun",)}
    zoo = {".".join(("splitzoo", *parts)) for parts in folders if parts[:1] != ("splitrun",)}
    assert listed_packages(ROOT) == runtime | zoo
    assert listed_packages(ROOT / "splitrun") == runtime


def test_extras_that_messages_and_pages_name_exist() -> None:
    offered = {
        name: tomllib.loads((folder / "pyproject.toml").read_text())["project"][
            "optional-dependencies"
        ]
        for name, folder in (("splitzoo", ROOT), ("splitrun", ROOT / "splitrun"))
    }
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "splitrun" / "README.md"]
    named = {
        (package, extra)
        for path in [*sources(), *pages]
        for package, extras in EXTRAS.findall(path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert len(named) > 8
    for package, extra in named:
        assert extra in offered[package], f"{package} has no extra {extra}"


def test_profile_is_a_namespace_package() -> None:
    # With an __init__.py, `import profile` from the repository root would find this folder instead
    # of the standard library's module, which cProfile and through it torch.export import.
    assert not (ROOT / "profile" / "__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-c", "import profile; print(profile.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).name == "profile.py"


def test_torch_export_and_splitzoo_import_from_the_root() -> None:
    code = (
        "import torch; torch.export.export(torch.nn.Linear(2, 2), (torch.rand(1, 2),)); "
        "import splitzoo"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


def test_root_has_no_conftest() -> None:
    # The root is a package, and pytest would import it under another name.
    assert not (ROOT / "conftest.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    imported = imported_parts(path)
    if part in ("__init__", FRONT):
        assert imported <= {"splitrun", "profile" if part == "__init__" else "progress"}
        return
    if path.name not in COMMANDS and path.parent.name != "commands":
        assert FRONT not in imported
    imported.discard(FRONT)
    later = {other for other in imported if rank(other) > rank(part)}
    assert not later


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_inside_the_package_are_relative(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    absolute = [
        name
        for node in ast.walk(tree)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if name.partition(".")[0] == "splitzoo"
    ]
    assert not absolute


@pytest.mark.parametrize("name", ["zoo", "export", "cards"])
def test_lazy_packages_give_what_they_name(name: str) -> None:
    package = importlib.import_module(f"splitzoo.{name}")
    assert sorted(package.__all__) == sorted(package._HOME)
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


# What a board runs.
CARRIED = sorted((ROOT / "splitrun").rglob("*.py"))


def test_bundles_carry_the_runtime_whole(tiny_bundle) -> None:
    folder = tiny_bundle / "splitrun"
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
    sources = (*CARRIED, *(ROOT / "splitrun").rglob("*.[ch]"))
    assert found == {path.relative_to(ROOT / "splitrun"): path.read_bytes() for path in sources}


def test_the_runtime_has_a_small_public_face() -> None:
    code = (
        "import sys, splitrun; "
        "assert not {'torch', 'splitzoo', 'pydantic'} & set(sys.modules); "
        "print(*splitrun.__all__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted(importlib.import_module("splitrun").__all__)


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_runtime_is_written_in_the_boards_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
    }
    imported |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    newer = ("Self", "Never", "LiteralString", "assert_never", "override", "Unpack", "Required")
    assert not imported & {f"typing.{name}" for name in newer}
    assert not imported & {"enum.StrEnum", "datetime.UTC", "contextlib.chdir", "itertools.batched"}
    assert "hashlib.file_digest" not in imported


def test_the_runtime_imports_what_the_board_has() -> None:
    engines = {"onnxruntime", "openvino", "torch", "torch_tensorrt", "tensorrt", "cuda"}
    engines |= {"ai_edge_litert", "executorch", "ncnn"}
    board = {"numpy", "PIL", "constriction", *engines}
    links = {"paho", "serial", "cobs", "cv2"}  # each where it is used alone
    server = {"anyio", "prometheus_client", "starlette", "uvicorn"}
    server |= {"ray", "triton_python_backend_utils"}  # in the Python of a running server
    for path in CARRIED:
        allowed = board | {"serving": server, "sending": links}.get(path.parent.name, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            outside = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert outside <= allowed, f"{path.name} imports {outside - allowed}"


def test_each_module_of_the_runtime_can_be_imported_first() -> None:
    """Modules that import each other in a circle fail where the wrong one comes first."""
    script = """
import importlib, pkgutil, sys
import splitrun
found = pkgutil.walk_packages(splitrun.__path__, "splitrun.")
for name in [module.name for module in found if not module.name.endswith("__main__")]:
    for loaded in [known for known in sys.modules if known.partition(".")[0] == "splitrun"]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
