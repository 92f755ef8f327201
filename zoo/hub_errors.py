"""The one boundary to ``huggingface_hub``: its errors become ours, and its waits are bounded.

By itself it repeats a request five times, after 1, 2, 4, 8 and 8 s or whatever wait the server asks
for, and some answers it awaits for ever. Inside :func:`hub_calls`

- no answer in 10 s ends a request that reads (``HF_HUB_ETAG_TIMEOUT`` or
  ``HF_HUB_DOWNLOAD_TIMEOUT``, whichever is longer), and in 30 s one that writes;
- a server that asks for a wait of more than 10 s is not waited for.

So a request that is answered with 429 or 5xx waits for 23 s in all, or 55 s where the server asks
for waits; a download that stands still ends after 66 s, a silent server after a minute and a half.
"""

import contextlib
import errno
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from splitrun.errors import HubError, SplitzooError, WeightsNotFoundError

from .hub_names import Repo, bad_token

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

LONGEST_WAIT_S = 10
WRITE_TIMEOUT_S = 30
_LOGIN = "log in with a token from https://huggingface.co/settings/tokens: hf auth login"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_USED_UP = re.compile(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")
_MALFORMED = (json.JSONDecodeError, KeyError)
# By name, since which HTTP library it is differs; see _http_error.
_CUT = ("RemoteProtocolError", "ReadError", "WriteError")
_SECRET = re.compile(r"\b(hf|api_org)_\w+|(?<=Bearer )\S+", re.IGNORECASE)


@contextlib.contextmanager
def hub_calls(repo: Repo, cache: Path, *, pushing: bool = False) -> Iterator[None]:
    """Bound the waits of what is asked of the Hub meanwhile, and explain its errors.

    Args:
        repo: What is asked for, for messages.
        cache: Folder of the Hub's files, for messages.
        pushing: Whether the repository is written.

    Raises:
        WeightsNotFoundError: The repository of a registered model does not exist.
        HubError: Anything else that went wrong there or on the way.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import EntryNotFoundError

    address = urlsplit(constants.ENDPOINT)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise HubError(
            f"HF_ENDPOINT is {_quoted(constants.ENDPOINT)}, which is no address.",
            next_step="Unset it, or set it to something like https://huggingface.co",
        )
    hooks = get_session().event_hooks
    hooks["request"].append(_bound_timeout)
    hooks["response"].append(_check_wait)
    try:
        yield
    except (
        *(_http_error(), EntryNotFoundError),
        *(OSError, ValueError, RuntimeError, KeyError),
    ) as error:
        raise _explain(error, repo, cache, pushing) from error
    finally:
        hooks["request"].remove(_bound_timeout)
        hooks["response"].remove(_check_wait)


def is_outage(error: Exception) -> bool:
    """Say whether the Hub could not be asked, so that a copy at hand is the best there is.

    Where it could, and refused, what it said counts.
    """
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (FileMetadataError, _http_error()))


def not_at_hand(repo: Repo, cache: Path, reason: str) -> WeightsNotFoundError:
    """Return the error of a model that is not in the cache when no request may be made."""
    return WeightsNotFoundError(
        repo.model or str(repo),
        f"{reason}, and {cache} holds no whole copy of {repo}",
        next_step=f"Fetch it where there is a network: splitzoo zoo pull {repo}{_random(repo)}",
    )


def describe(error: BaseException) -> str:
    """Return an outage in a few words."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the Hub answers with status {response.status_code}"
    return _outage(list(_causes(error)))[0]


def _explain(error: Exception, repo: Repo, cache: Path, pushing: bool) -> SplitzooError:
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, OfflineModeIsEnabled

    causes = list(_causes(error))
    verb = "push to" if pushing else "fetch"
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return _answer(cause, repo, verb, pushing)
        if isinstance(cause, OfflineModeIsEnabled):
            return HubError(f"Cannot {verb} {repo}: HF_HUB_OFFLINE is set.", next_step="Unset it.")
        if isinstance(cause, (FileMetadataError, _http_error(), *_MALFORMED)):
            reason, next_step = _outage(causes)
            return HubError(f"Cannot {verb} {repo}: {reason}.", next_step=next_step + _random(repo))
        if isinstance(cause, OSError) and cause.errno:
            return _disk(cause, repo, cache, verb)
    if isinstance(error, UnicodeEncodeError):
        return bad_token()
    reason = _quoted(error)
    if reason.startswith("Consistency check failed"):
        reason = "a file came with another length than announced."
    return HubError(f"Cannot {verb} {repo}: {reason}", next_step="Try again.")


def _answer(error: "HfHubHTTPError", repo: Repo, verb: str, pushing: bool) -> SplitzooError:
    from huggingface_hub import constants, errors

    address = urlsplit(constants.ENDPOINT)
    page = f"{address.scheme}://{_host()}{address.path}/{repo.repo_id}"
    status = error.response.status_code
    said = _quoted(error.server_message or "", error)
    cannot = f"Cannot {verb} {repo}"
    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{cannot}: it is gated, and its owner has not let you in.",
            next_step=f"Ask for access at {page}, then {_LOGIN}",
        )
    if isinstance(error, errors.DisabledRepoError):
        return HubError(f"{cannot}: it was disabled.", next_step=f"See {page}")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{repo.repo_id} has no revision {repo.revision!r}.",
            next_step=f"Its branches and tags: {page}/tree/{constants.DEFAULT_REVISION}",
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        name = error.response.url.path.rpartition("/")[2]
        return HubError(
            f"{repo} is no saved model of splitzoo: it has no {name}.", next_step=f"See {page}"
        )
    if "Invalid credentials" in said or (status == 401 and pushing):
        return HubError(
            f"{cannot}: the Hub does not accept the token, or got none.",
            next_step=f"To be known there, {_LOGIN}",
        )
    if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
        if repo.model and not pushing:
            return WeightsNotFoundError(
                repo.model,
                f"{page} does not exist or is private",
                next_step=f"If it is private, {_LOGIN}{_random(repo)}",
            )
        return HubError(
            f"{cannot}: there is no such repository, or it is private.",
            next_step=f"Is the name right? If it is private, {_LOGIN}",
        )
    if status == 403:
        lacks = "the right to write there" if pushing else "the right to read it"
        return HubError(
            f"{cannot}: the token lacks {lacks}{said and f' ({said})'}.",
            next_step="Make one that has it at https://huggingface.co/settings/tokens, then: "
            "hf auth login",
        )
    if status == 429:
        wait = _wait_asked(error.response)
        when = f"in {wait} s" if wait else "in some minutes"
        return HubError(
            f"{cannot}: too many requests.",
            next_step=f"Try again {when}. Who is logged in may ask more often: hf auth login",
        )
    if status in (409, 412):
        return HubError(f"{cannot}: it changed meanwhile.", next_step="Try again.")
    if status >= 500:
        return HubError(
            f"{cannot}: the Hub is not working (status {status}).",
            next_step="Try again later; its state is at https://status.huggingface.co",
        )
    return HubError(f"{cannot}: the Hub refused (status {status}){said and f': {said}'}.")


def _outage(causes: list[BaseException]) -> tuple[str, str]:
    from huggingface_hub.errors import FileMetadataError

    host = _host()
    for cause in causes:
        if isinstance(cause, (FileMetadataError, *_MALFORMED)):
            return (
                f"what answers at {host} is not the Hub",
                "Is HF_ENDPOINT right? Does the network want a login in a browser first?",
            )
        if isinstance(cause, socket.gaierror):
            return f"the address of {host} cannot be found", "Is there a network?"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} refuses connections", "Is HF_ENDPOINT right, or a proxy in the way?"
        if isinstance(cause, TimeoutError):
            return (
                f"{host} did not answer in time",
                "Try again, or allow more seconds: HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT",
            )
        if isinstance(cause, ssl.SSLError):
            return (
                f"the certificate of {host} is not trusted",
                "Behind a proxy with its own, name its file in SSL_CERT_FILE.",
            )
        if isinstance(cause, ConnectionError) or type(cause).__name__ in _CUT:
            return f"the connection to {host} was cut", "Try again."
    return f"{host} cannot be reached ({_quoted(causes[0])})", "Is there a network?"


def _host() -> str:
    from huggingface_hub import constants

    # Without the user and password that an address may hold.
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def _disk(error: OSError, repo: Repo, cache: Path, verb: str) -> HubError:
    place, reason = error.filename or cache, (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return HubError(
            f"Cannot {verb} {repo}: no space is left for {place}.",
            next_step="Make some (hf cache ls), or name another place: --cache-dir, HF_HOME",
        )
    if error.errno in _FORBIDDEN:
        reason = "it may not be read or written"
    return HubError(
        f"Cannot {verb} {repo}: {place}: {reason}.",
        next_step="Name another place for the Hub's files: --cache-dir, HF_HOME",
    )


def _random(repo: Repo) -> str:
    if repo.model is None:
        return ""
    return (
        "\nFor graphs and latency, random weights will do:\n"
        "  on the command line:  --random-weights\n"
        f'  in Python:            zoo.load("{repo.model}", pretrained=False)'
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _quoted(text: object, error: "HfHubHTTPError | None" = None) -> str:
    """Words of another program on one line, without tokens."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    sent = error.response.request.headers.get("authorization", "") if error else ""
    if sent:
        line = line.replace(sent.removeprefix("Bearer "), "…")
    line = _SECRET.sub("…", line)
    return line if len(line) <= 300 else line[:299] + "…"


def _bound_timeout(request: Any) -> None:
    from huggingface_hub import constants

    reading = max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    bound = reading if request.method in ("GET", "HEAD") else max(reading, WRITE_TIMEOUT_S)
    set_ = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        step: min(set_.get(step) or bound, bound) for step in ("connect", "read", "write", "pool")
    }


def _check_wait(response: Any) -> None:
    from huggingface_hub.utils import hf_raise_for_status

    if response.status_code >= 400 and _wait_asked(response) > LONGEST_WAIT_S:
        hf_raise_for_status(response)


def _wait_asked(response: Any) -> int:
    # Both are honoured by huggingface_hub: Retry-After: 55, and ratelimit: "api";r=0;t=55
    limit = _USED_UP.search(response.headers.get("ratelimit", ""))
    asked = limit[1] if limit else response.headers.get("retry-after", "").strip()
    return int(asked) if asked.isdecimal() else 0


def _http_error() -> type[Exception]:
    """Root of the errors of the HTTP library: httpx below huggingface_hub 2, now httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]
