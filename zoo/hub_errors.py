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
import re
import socket
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
_SECRET = re.compile(r"\b(hf|api_org)_\w+|(?<=Bearer )\S+", re.IGNORECASE)

# Classes by name, since which HTTP library huggingface_hub uses differs; see _http_error.
_NONSENSE = {"FileMetadataError", "JSONDecodeError", "KeyError"}
_OUTAGES = (
    (
        _NONSENSE,
        "what answers at {host} is not the Hub",
        "Is HF_ENDPOINT right? Does the network want a login in a browser first?",
    ),
    (
        {"gaierror"},
        "the address of {host} cannot be found",
        "Is there a network? Without one, what the cache holds loads with HF_HUB_OFFLINE=1; fetch "
        "the rest elsewhere, with splitzoo zoo pull, and copy the cache.",
    ),
    (
        {"ConnectionRefusedError"},
        "{host} refuses connections",
        "Is HF_ENDPOINT right, or a proxy in the way?",
    ),
    (
        {"TimeoutError"},
        "{host} did not answer in time",
        "Try again, or allow more seconds: HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT",
    ),
    (
        {"SSLError"},
        "the certificate of {host} is not trusted",
        "Behind a proxy with its own, name its file in SSL_CERT_FILE.",
    ),
    (
        {"ConnectionError", "RemoteProtocolError", "ReadError", "WriteError"},
        "the connection to {host} was cut",
        "Try again.",
    ),
)
"""Classes of a cause, what it means, and what to do about it; the first that fits counts."""


@contextlib.contextmanager
def hub_calls(repo: Repo, cache: Path, *, pushing: bool = False) -> Iterator[None]:
    """Bound the waits of what is asked of the Hub meanwhile, and explain its errors.

    Messages name the repository, the folder of the Hub's files, and whether something is pushed.

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


@contextlib.contextmanager
def bounded_sockets() -> Iterator[None]:
    """Bound the waits of downloads that know no limits: torch.hub's, of torchvision and CompressAI.

    Nothing is repeated there, so an address that does not answer costs one wait.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(LONGEST_WAIT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


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
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    causes = list(_causes(error))
    cannot = f"Cannot {'push to' if pushing else 'fetch'} {repo}"
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return _answer(cause, repo, cannot, pushing)
        if isinstance(cause, OfflineModeIsEnabled):
            return HubError(f"{cannot}: HF_HUB_OFFLINE is set.", next_step="Unset it.")
        if isinstance(cause, _http_error()) or _classes(cause) & _NONSENSE:
            reason, next_step = _outage(causes)
            return HubError(f"{cannot}: {reason}.", next_step=next_step + _random(repo))
        if isinstance(cause, OSError) and cause.errno:
            return _disk(cause, cannot, cache)
    if isinstance(error, UnicodeEncodeError):
        return bad_token()
    reason = _quoted(error)
    if reason.startswith("Consistency check failed"):
        reason = "a file came with another length than announced."
    return HubError(f"{cannot}: {reason}", next_step="Try again.")


def _answer(error: "HfHubHTTPError", repo: Repo, cannot: str, pushing: bool) -> SplitzooError:
    """Return the error for an answer of the Hub that is no success."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    page = f"{address.scheme}://{_host()}{address.path}/{repo.repo_id}"
    status, kinds = error.response.status_code, _classes(error)
    said = _quoted(error.server_message or "", error)
    file = error.response.url.path.rpartition("/")[2]
    wait = _wait_asked(error.response)
    unauthorised = "Invalid credentials" in said or (status == 401 and pushing)
    special = kinds & {"GatedRepoError", "DisabledRepoError", "EntryNotFoundError"}
    unknown = status == 401 or kinds & {"RepositoryNotFoundError"}
    if repo.model and unknown and not (unauthorised or pushing or special):
        return WeightsNotFoundError(
            repo.model,
            f"{page} does not exist or is private",
            next_step=f"If it is private, {_LOGIN}{_random(repo)}",
        )
    rules = (
        (
            "GatedRepoError" in kinds,
            f"{cannot}: it is gated, and its owner has not let you in.",
            f"Ask for access at {page}, then {_LOGIN}",
        ),
        ("DisabledRepoError" in kinds, f"{cannot}: it was disabled.", f"See {page}"),
        (
            "RevisionNotFoundError" in kinds,
            f"{repo.repo_id} has no revision {repo.revision!r}.",
            f"Its branches and tags: {page}/tree/{constants.DEFAULT_REVISION}",
        ),
        (
            "RemoteEntryNotFoundError" in kinds,
            f"{repo} is no saved model of splitzoo: it has no {file}.",
            f"See {page}",
        ),
        (
            unauthorised,
            f"{cannot}: the Hub does not accept the token, or got none.",
            f"To be known there, {_LOGIN}",
        ),
        (
            unknown,
            f"{cannot}: there is no such repository, or it is private.",
            f"Is the name right? If it is private, {_LOGIN}",
        ),
        (
            status == 403,
            f"{cannot}: the token lacks the right to {'write there' if pushing else 'read it'}"
            f"{said and f' ({said})'}.",
            "Make one that has it at https://huggingface.co/settings/tokens, then: hf auth login",
        ),
        (
            status == 429,
            f"{cannot}: too many requests.",
            f"Try again in {f'{wait} s' if wait else 'some minutes'}. Who is logged in may ask "
            "more often: hf auth login",
        ),
        (status in (409, 412), f"{cannot}: it changed meanwhile.", "Try again."),
        (
            status >= 500,
            f"{cannot}: the Hub is not working (status {status}).",
            "Try again later; its state is at https://status.huggingface.co",
        ),
        (True, f"{cannot}: the Hub refused (status {status}){said and f': {said}'}.", ""),
    )
    return next(HubError(text, next_step=advice) for applies, text, advice in rules if applies)


def _outage(causes: list[BaseException]) -> tuple[str, str]:
    host = _host()
    for cause in causes:
        for names, reason, next_step in _OUTAGES:
            if _classes(cause) & names:
                return reason.format(host=host), next_step
    return f"{host} cannot be reached ({_quoted(causes[0])})", "Is there a network?"


def _classes(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _host() -> str:
    from huggingface_hub import constants

    # Without the user and password that an address may hold.
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def _disk(error: OSError, cannot: str, cache: Path) -> HubError:
    place, reason = error.filename or cache, (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return HubError(
            f"{cannot}: no space is left for {place}.",
            next_step="Make some (hf cache ls), or name another place: --cache-dir, HF_HOME",
        )
    if error.errno in _FORBIDDEN:
        reason = "it may not be read or written"
    return HubError(
        f"{cannot}: {place}: {reason}.",
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
