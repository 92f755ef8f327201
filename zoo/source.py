"""What a user means by a model: a registered name, a folder, or a repository on the Hub."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from splitrun.errors import UnknownNameError

from .models import is_name, registered

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """One of the three is set.

    Attributes:
        name: A name, registered or of a family.
        folder: Of a saved model or bundle; it exists.
        repository: ``"org/name"`` or ``"org/name@revision"``.
    """

    name: str | None = None
    folder: Path | None = None
    repository: str | None = None

    @classmethod
    def of(cls, given: str | Path, revision: str | None = None) -> "Source":
        """Tell which one is meant; nothing but the local file system is looked at.

        A name of a model, registered or of a family, is one even where a folder of that name lies;
        written as a path, ``./name``, it is the folder.

        Raises:
            UnknownNameError: A path is meant, and no folder is there; or a revision is asked of a
                folder, or besides the one that the repository names.
        """
        text, path = str(given), Path(given)
        if isinstance(given, str) and text in registered():
            return cls(name=text)
        with contextlib.suppress(OSError):  # of a name too long for a file system
            if text and path.is_dir():
                if isinstance(given, str) and "/" not in text and is_name(text):
                    return cls(name=text)
                if revision:
                    raise UnknownNameError(
                        "revision", revision, next_step=f"The folder {text} has none: leave it out."
                    )
                return cls(folder=path)
        local = isinstance(given, Path) or text.startswith((".", "/", "~")) or "\\" in text
        if not local and _REPOSITORY.fullmatch(text):
            if revision and "@" in text:
                raise UnknownNameError(
                    "revision", revision, next_step=f"{text} names one already: leave one out."
                )
            return cls(repository=f"{text}@{revision}" if revision else text)
        if local or "/" in text:
            raise UnknownNameError(
                "model folder", text, next_step="Give a folder that holds config.json, or a name."
            )
        return cls(name=text)


def as_folder(given: str | Path) -> Path | None:
    """Return the path if a local folder is meant.

    Raises:
        UnknownNameError: A path is meant, and no folder is there.
    """
    return Source.of(given).folder
