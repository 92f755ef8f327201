"""Files and folders that appear whole or not at all, and never in the place of something else.

One rule for all that is written: what exists is replaced only by force. An empty folder, a pipe and
a device are no obstacle. Links are followed.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError

_ADVICE = "Replace it with --force, or name another with -o."
_REFUSED = ((stat.S_ISDIR, "folder"), (stat.S_ISSOCK, "socket"), (stat.S_ISBLK, "block device"))


@contextlib.contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder whose content is in ``path`` when the block ends well.

    The last step is one rename where ``path`` is new, and else one for each entry, so that a folder
    that is a mount point or somebody's current one stays the same. When the block raises, or is
    interrupted, all is as it was.

    Args:
        path: The folder to make.
        force: Whether it may hold something: entries of the same names are then replaced, and the
            others stay.

    Raises:
        OutputError: ``path`` is taken, or the file system refused (no permission, no space).
    """
    path = Path(path)
    check_free(path, force=force)
    with _output_errors(path):
        target = path.resolve()
    with _parents(path, target):
        with _output_errors(path):
            place = target if target.is_dir() else target.parent
            temporary = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=place))
        try:
            with _output_errors(path):
                yield temporary
                if target.is_dir():
                    _check_empty(path, force, besides=temporary)
                    _fill(target, temporary)
                else:
                    check_free(path)
                    temporary.chmod(0o777 & ~_umask())
                    temporary.replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary file whose content is in ``path`` when the block ends well.

    A regular file takes its place by one rename, with the permissions of the file that it replaces.
    Pipes and devices are written to, and so are files that the program was started with, such as
    ``/dev/stdout``.

    Args:
        path: The file to write.
        force: Whether a file that exists may be replaced.

    Raises:
        OutputError: ``path`` is taken, or nothing that can be written, or the file system refused.
        BrokenPipeError: What read the pipe went away.
    """
    path = Path(path)
    check_file(path, force=force)
    with _output_errors(path):
        target = Path(os.path.realpath(path))
    through = _is_written_through(path)
    with _parents(path, target):
        with _output_errors(path):
            place = None if through else target.parent
            handle, name = tempfile.mkstemp(prefix=_prefix(target), dir=place)
            os.close(handle)
        temporary = Path(name)
        try:
            with _output_errors(path):
                yield temporary
                if through:
                    _pour(temporary, path)
                else:
                    check_file(path, force=force)
                    _take_permissions(temporary, target)
                    temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def check_free(path: Path, *, force: bool = False, advice: str = _ADVICE) -> None:
    """Raise ``OutputError`` if ``path`` is a file, or without force a folder that holds something.

    Long work calls it before it starts, so that nobody waits for a refusal.
    """
    path = Path(path)
    with _output_errors(path):
        if path.is_dir():
            _check_empty(path, force, advice)
        elif path.exists() or path.is_symlink():
            advice = "Name a folder with -o."
            raise OutputError(path, "a file of that name exists", next_step=advice)


def check_file(path: Path, *, force: bool = False) -> None:
    """Raise ``OutputError`` if no file can be written to ``path``, or one is there without force.

    Long work calls it before it starts.
    """
    path = Path(path)
    with _output_errors(path):
        mode = 0 if _is_written_through(path) else _mode(path)
    for is_of_kind, kind in _REFUSED:
        if is_of_kind(mode):
            raise OutputError(path, f"it is a {kind}", next_step="Name a file with -o.")
    if mode and not force:
        raise OutputError(path, "a file of that name exists", next_step=_ADVICE)


def is_standard_output(path: Path) -> bool:
    """Say whether a path, such as ``/dev/stdout``, is another name of the standard output."""
    return _descriptor(path) == 1


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    # Not hashlib.file_digest: this runs on boards with Python 3.10.
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def _check_empty(
    path: Path, force: bool, advice: str = _ADVICE, besides: Path | None = None
) -> None:
    names = {entry.name for entry in path.iterdir()} - {besides.name if besides else ""}
    if names and not force:
        raise OutputError(path, "the folder exists and is not empty", next_step=advice)


def _fill(folder: Path, temporary: Path) -> None:
    """Move what is in ``temporary`` into a folder above it, all of it or nothing."""
    names = sorted(entry.name for entry in temporary.iterdir())
    aside = Path(tempfile.mkdtemp(dir=temporary))
    try:
        for name in names:
            if os.path.lexists(folder / name):
                (folder / name).rename(aside / name)
            (temporary / name).rename(folder / name)
    except BaseException:
        for name in names:
            if not os.path.lexists(temporary / name):
                (folder / name).rename(temporary / name)
            if os.path.lexists(aside / name):
                (aside / name).rename(folder / name)
        raise


def _mode(path: Path) -> int:
    """Return the mode of what a path leads to; 0 where nothing is."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0


def _is_written_through(path: Path) -> bool:
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _descriptor(path) is not None


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file that a path is another name of, if it is one."""
    path = path.absolute()
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if folder in ("/dev/fd", f"/proc/{os.getpid()}/fd") and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, path.readlink())
    return None


def _pour(source: Path, path: Path) -> None:
    number = _descriptor(path)
    if number == 1:
        sys.stdout.flush()
    # Opened anew, a file that the shell appends to would be written from its beginning.
    handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
    with os.fdopen(handle, "wb") as written, source.open("rb") as file:
        shutil.copyfileobj(file, written)


def _take_permissions(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.chmod(0o666 & ~_umask())
        return
    old = target.stat()
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # root alone can give a file away
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


@contextlib.contextmanager
def _parents(path: Path, target: Path) -> Iterator[None]:
    """Make the folders above ``target``; those that are empty afterwards are removed again."""
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        with _output_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()  # refused where something is in it: then all went well


def _prefix(path: Path) -> str:
    return f".{path.name[:40]}."  # the whole name may be as long as names can be


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads any more: no error to tell them of
    except OSError as error:
        reason, advice = (error.strerror or str(error)).lower(), "Name another place with -o."
        raise OutputError(path, reason, next_step=f"Nothing was left behind. {advice}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
