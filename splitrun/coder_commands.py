"""``splitrun compile`` and ``splitrun coder``: the coder in C, for Python here, for C elsewhere."""

import argparse
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .text import json_text

if TYPE_CHECKING:
    from .bundle import Bundle

_COMMAND = "cc -std=c99 -O2 -c sz.c"


def add_coder_commands(commands: Any, named: argparse.ArgumentParser) -> None:
    """Add the commands ``compile`` and ``coder``.

    Args:
        commands: What ``add_subparsers`` returned.
        named: Parent of commands that take a bundle and run nothing of it.
    """
    compiling = commands.add_parser(
        "compile",
        help="compile the coder in C for this machine",
        description="Compile the coder in C with the system's C compiler, or the one that CC "
        "names. It codes the same bytes as plain Python, ten to twenty times as fast, where "
        "constriction has no wheel: on Linux on Arm.",
    )
    compiling.add_argument("--json", action="store_true", help="print JSON")
    compiling.set_defaults(start=_compile)

    coder = commands.add_parser(
        "coder",
        parents=[named],
        help="write the coder and a model's tables for a program in C",
        description="Write what a device without Python needs to make streams: the coder in C99 "
        "(sz.h, sz.c), the model's tables (coder.bin), its input (model.h), and an example "
        "program (device.c).",
    )
    coder.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    coder.add_argument(
        "--force", action="store_true", help="replace files in that folder; without it, refuse"
    )
    coder.set_defaults(run=_coder)


def _compile(arguments: argparse.Namespace) -> None:
    from .coding.ans import BACKEND
    from .coding.c_library import compile_library, library, library_path

    command = compile_library(library_path())
    loads = library() is not None
    first = BACKEND.NAME == "constriction"
    if arguments.json:
        print(json_text({"command": command, "library": str(library_path()), "loads": loads}))
        return
    print(shlex.join(command))
    if not loads:
        print("The library was made for another machine: it does not load here.")
    elif first:
        print("splitrun goes on coding with constriction, which is installed.")
    else:
        print("splitrun codes with it from now on; see: python -m splitrun bench --json")


def _coder(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    from .coding.c_library import SOURCES
    from .coding.coder_file import coder_file
    from .files import new_folder

    content = coder_file(bundle.codec())
    with new_folder(arguments.output, force=arguments.force) as folder:
        for source in sorted(SOURCES.glob("*.[ch]")):
            shutil.copyfile(source, folder / source.name)
        (folder / "coder.bin").write_bytes(content)
        (folder / "model.h").write_text(_model_header(bundle), encoding="utf-8")
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    if arguments.json:
        print(json_text({"folder": str(arguments.output), "files": files}))
        return
    for name, size in files.items():
        print(f"{name:10} {size:>9,} bytes")
    print(f"In a program's folder: {_COMMAND}; how it is used stands in sz.h")


def _model_header(bundle: "Bundle") -> str:
    """Return ``model.h``: what turns pixels into the model's input."""
    import numpy as np

    preprocessing = bundle.preprocessing
    height, width = preprocessing.crop

    def floats(values: tuple[float, ...]) -> str:
        # Digits enough that a compiler reads the very float32.
        return ", ".join(f"{float(np.float32(value))!r}f" for value in values)

    return f"""/* {bundle.name} takes RGB in [0, 1], less the mean, divided by std,
 * as (1, 3, height, width) float32. */
#define MODEL_SHORTER_SIDE {preprocessing.resize} /* after resizing, before the centre is cut out */
#define MODEL_HEIGHT {height}
#define MODEL_WIDTH {width}
#define MODEL_MEAN {{{floats(preprocessing.mean)}}}
#define MODEL_STD {{{floats(preprocessing.std)}}}
"""
