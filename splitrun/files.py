"""Files and folders that appear whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of ``path`` when the block ends well.

    The temporary folder lies beside ``path``, so the last step is one rename. When the block
    raises, or is interrupted, it is removed and ``path`` is as it was.

    Args:
        path: The folder to make. It must not exist, or be empty.

    Raises:
        OutputError: ``path`` is taken, or the file system refused (no permission, no space).
    """
    with _output_errors(path):
        path = Path(path).absolute()
    check_free(path)
    made = [parent for parent in path.parents if not parent.exists()]
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with _output_errors(path):
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            check_free(path)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()  # refused where something is in it: then all went well


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary file name that takes the place of ``path``, as :func:`new_folder` does."""
    with _output_errors(path):
        path = Path(path).absolute()
        if path.is_dir():
            raise OutputError(path, "it is a folder", next_step="Give the name of a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _output_errors(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(path: Path) -> None:
    """Raise ``OutputError`` if ``path`` is a file or a folder that holds something.

    Long work calls it before it starts, so that nobody waits for a refusal.
    """
    with _output_errors(path):
        if path.is_dir():
            if any(path.iterdir()):
                advice = "Name another folder with -o, or remove that one."
                raise OutputError(path, "the folder exists and is not empty", next_step=advice)
        elif path.exists() or path.is_symlink():
            advice = "Name a folder with -o."
            raise OutputError(path, "a file of that name exists", next_step=advice)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    # Not hashlib.file_digest: this runs on boards with Python 3.10.
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason, advice = (error.strerror or str(error)).lower(), "Name another place with -o."
        raise OutputError(path, reason, next_step=f"Nothing was left behind. {advice}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
