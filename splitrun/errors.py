"""Every error that splitzoo raises on purpose.

::

    SplitzooError                 exit code 1 on the command line
    ├── UsageError                exit code 2: arguments that do not go together
    ├── UnknownNameError          a model or target name that is not registered
    ├── DuplicateNameError        a name registered twice
    ├── SpecError                 a model description from which nothing can be built
    ├── WeightsNotFoundError      weights that cannot be had
    ├── ModelFolderError          a saved model that cannot be loaded
    ├── ImageError                an image that cannot be read or used
    ├── TablesError               entropy tables that are not valid
    ├── BitstreamError            a stream that is damaged, foreign or hostile
    │   ├── ForeignStreamError    a stream of another model
    │   └── DesyncError           device and edge compute other scale indexes
    ├── RateError                 a β that a model cannot encode with
    ├── HubError                  a repository on the Hub that cannot be had or written
    ├── CheckpointError           a legacy checkpoint that cannot be converted
    ├── SomeFilesError            files of several that could not be used; the others were
    ├── BundleError               a bundle that cannot be trusted or read
    ├── ReportError               a profile that cannot be read or does not fit
    ├── RecipeError               a training recipe that cannot be read or followed
    ├── DatasetError              a data set that is missing, empty or of another form
    ├── TrainingError             a training run that cannot begin, go on or end
    ├── OutputError               a result that cannot be written
    ├── LinkError                 a server, or a link to one, that does not take streams
    ├── DependencyError           a package that is not installed
    ├── RequestError              a request that a server cannot answer as it is
    │   ├── TokenError            one without a token that the server knows
    │   └── BusyError             one that came at a bad time: send it again
    └── ParityError               exit code 3: two runtimes disagree

Each says what happened and, in ``next_step``, what to do about it.
"""

from collections.abc import Iterator, Sequence
from typing import Any


class SplitzooError(Exception):
    """Root of the tree.

    Args:
        message: What happened, and what was expected.
        next_step: Advice, best as a command; empty where there is none.
    """

    exit_code = 1

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}\n{self.next_step}" if self.next_step else self.message

    def __reduce__(self) -> tuple:
        # From another process: the arguments of __init__ differ from kind to kind.
        return _restored, (type(self), self.args, self.__dict__)

    def document(self) -> dict[str, Any]:
        """Return what ``--json`` prints of an error."""
        return error_document(type(self).__name__, self.message, self.next_step, self.exit_code)

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> "SplitzooError":
        """Return the error that a program printed; it has a message, and no other fields."""
        said = document["error"]
        kinds = {kind.__name__: kind for kind in _kinds(SplitzooError)}
        kind = kinds.get(said["kind"], SplitzooError)
        error = kind.__new__(kind)
        SplitzooError.__init__(error, said["message"], next_step=said["next_step"])
        error.exit_code = said["exit_code"]
        return error


def _restored(kind: type[SplitzooError], args: tuple, fields: dict[str, Any]) -> SplitzooError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


def error_document(kind: str, message: str, next_step: str, exit_code: int) -> dict[str, Any]:
    """Return what ``--json`` prints on standard output where there is no result."""
    fields = {"kind": kind, "message": message, "next_step": next_step, "exit_code": exit_code}
    return {"error": fields}


def _kinds(kind: type[SplitzooError]) -> Iterator[type[SplitzooError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _kinds(inner)


class UsageError(SplitzooError):
    """Arguments of a command that do not go together, or that lack one."""

    exit_code = 2


class UnknownNameError(SplitzooError):
    """A name that is not registered among entries of a kind; it carries close ones, best first."""

    def __init__(
        self, kind: str, name: str, matches: Sequence[str] = (), *, next_step: str = ""
    ) -> None:
        self.kind, self.name, self.matches = kind, name, tuple(matches)
        meant = f"Did you mean {' or '.join(matches)}? " if matches else ""
        super().__init__(f"No {kind} is named {name!r}.", next_step=f"{meant}{next_step}".strip())


class DuplicateNameError(SplitzooError):
    """A name registered twice."""


class SpecError(SplitzooError):
    """A model description from which nothing can be built."""


class WeightsNotFoundError(SplitzooError):
    """Weights that cannot be had."""

    def __init__(self, name: str, reason: str, *, next_step: str) -> None:
        self.name = name
        super().__init__(f"No weights for {name}: {reason}.", next_step=next_step)


class ModelFolderError(SplitzooError):
    """A saved model that cannot be loaded: missing, damaged, newer, or with other tensors."""


class ImageError(SplitzooError):
    """An image that cannot be read or used."""

    def __init__(self, path: object, reason: str, *, next_step: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"Cannot use the image {path}: {reason}.", next_step=next_step)


class SomeFilesError(SplitzooError):
    """Files of several that could not be used, after what came of the others was said.

    Args:
        kind: Plural of what they are, such as ``"images"``.
        total: Number of all files.
        errors: Error of each file that could not be used.
    """

    def __init__(self, kind: str, total: int, errors: Sequence[SplitzooError]) -> None:
        self.errors = tuple(errors)
        lines = [f"{len(errors)} of {total} {kind} could not be used:"]
        lines += [f"  {error.message}" for error in errors]
        steps = dict.fromkeys(error.next_step for error in errors if error.next_step)
        super().__init__("\n".join(lines), next_step="\n".join(steps))


def check_files_used(kind: str, total: int, errors: Sequence[SplitzooError]) -> None:
    """Raise the errors of files, if there are any, as one.

    Raises:
        SomeFilesError: Some of several files could not be used.
        SplitzooError: The only file could not.
    """
    if errors:
        raise errors[0] if total == 1 else SomeFilesError(kind, total, errors)


class TablesError(SplitzooError):
    """Entropy tables that are not valid."""


class CalibrationError(SplitzooError):
    """A model or images to which entropy tables cannot be fitted."""


class BitstreamError(SplitzooError):
    """A stream that is truncated, corrupted, foreign or hostile."""


class ForeignStreamError(BitstreamError):
    """A stream of another model than the one that is to read it."""


class DesyncError(BitstreamError):
    """The edge's hyper-decoder gave other scale indexes than the device's: nothing can be read."""


class RateError(SplitzooError):
    """A β that a model cannot encode with."""


class HubError(SplitzooError):
    """A repository on the Hugging Face Hub that cannot be read or written."""


class CheckpointError(SplitzooError):
    """A legacy checkpoint that cannot be read or does not fit its model."""


class BundleError(SplitzooError):
    """A bundle with a missing, changed or unreadable part."""


class ReportError(SplitzooError):
    """A profile that cannot be read, or that belongs to another model."""


class RecipeError(SplitzooError):
    """A training recipe that cannot be read or followed."""


class DatasetError(SplitzooError):
    """A data set that is missing, empty, or of another form than is expected."""


class TrainingError(SplitzooError):
    """A training run that cannot begin, go on or end."""


class OutputError(SplitzooError):
    """A result that cannot be written where it was asked for."""

    def __init__(self, path: object, reason: str, *, next_step: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"Cannot write {path}: {reason}.", next_step=next_step)


class LinkError(SplitzooError):
    """A server, or a link to one, that does not take streams."""


class DependencyError(SplitzooError):
    """A package that this step needs and that is not installed."""


class RequestError(SplitzooError):
    """A request that a server cannot answer as it is; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int = 400, *, next_step: str = "") -> None:
        self.status = status
        super().__init__(message, next_step=next_step)


class TokenError(RequestError):
    """A request without a token that the server knows."""


class BusyError(RequestError):
    """A request that came at a bad time, to be sent again in ``retry_after`` seconds."""

    def __init__(self, message: str, status: int = 429, *, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message, status, next_step=f"Send it again in {retry_after} s.")


class ParityError(SplitzooError):
    """Two runtimes that should agree do not."""

    exit_code = 3
