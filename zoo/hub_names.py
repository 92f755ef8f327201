"""Names and tokens for the Hugging Face Hub, checked before they reach a path or a request."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from splitrun.errors import HubError

NAMESPACE_VARIABLE = "SPLITZOO_HUB_NAMESPACE"
DEFAULT_NAMESPACE = "splitzoo"
DEFAULT_REVISION = "main"
_WORD = re.compile(r"(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?", re.ASCII)
_BRANCH = re.compile(r"(?!.*\.\.)(?=.{1,200}\Z)\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)
_TOKEN = re.compile("[!-~]+")


@dataclass(frozen=True)
class Repo:
    """A model repository at one revision; made by :func:`parse_repo`.

    Attributes:
        repo_id: ``"org/name"``.
        revision: A branch, tag or commit.
    """

    repo_id: str
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        return self.repo_id + (f"@{self.revision}" if self.revision != DEFAULT_REVISION else "")

    @property
    def model(self) -> str | None:
        """The registered name whose weights the repository holds, or None."""
        namespace, _, name = self.repo_id.partition("/")
        return name if namespace == hub_namespace() else None


def parse_repo(text: str) -> Repo:
    """Read ``"org/name"`` or ``"org/name@revision"``.

    Raises:
        HubError: It is neither. The revision becomes part of a path in the cache, so ``..`` and a
            leading ``/`` are refused too.
    """
    repo_id, separator, revision = text.partition("@")
    words = repo_id.split("/")
    if len(words) != 2 or not all(map(_WORD.fullmatch, words)) or repo_id.endswith(".git"):
        raise HubError(
            f"{text!r} does not name a repository.",
            next_step="Such names are org/name or org/name@revision: letters, digits, - _ and .",
        )
    if separator and not _BRANCH.fullmatch(revision):
        raise HubError(
            f"{text!r} names no revision after the @.",
            next_step=f"Give a branch, tag or commit, or leave it out: {repo_id}",
        )
    return Repo(repo_id, revision or DEFAULT_REVISION)


def hub_name(name: str) -> str:
    """Return the repository of a registered model's weights: ``"splitzoo/<name>"``.

    Raises:
        HubError: The environment names no namespace.
    """
    return f"{hub_namespace()}/{name}"


def hub_namespace() -> str:
    """Return the namespace in which registered names are looked up.

    The environment variable ``SPLITZOO_HUB_NAMESPACE`` names another one.

    Raises:
        HubError: The variable holds no namespace.
    """
    namespace = os.environ.get(NAMESPACE_VARIABLE) or DEFAULT_NAMESPACE
    if not _WORD.fullmatch(namespace):
        raise HubError(
            f"{NAMESPACE_VARIABLE} is {namespace!r}, which is no namespace of the Hub.",
            next_step="Set it to the name of a user or an organisation, or unset it.",
        )
    return namespace


def checked_token(token: str | None) -> str | None:
    """Return the token.

    Raises:
        HubError: It cannot be one. The message does not hold it.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise bad_token()
    return token


def bad_token() -> HubError:
    """Return the error for what cannot be a token."""
    return HubError(
        "The token is empty or holds characters that no token has.",
        next_step="Copy it again from https://huggingface.co/settings/tokens",
    )


def may_be_cached(repo_id: str) -> bool:
    """Say whether the Hub's cache has a folder of a repository; imports no library of the Hub."""
    loaded = sys.modules.get("huggingface_hub.constants")
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    cache = loaded.HF_HUB_CACHE if loaded else os.environ.get("HF_HUB_CACHE") or home / "hub"
    folder = f"models--{repo_id.partition('@')[0].replace('/', '--')}"
    return bool(repo_id) and (Path(cache).expanduser() / folder).is_dir()


def torch_hub() -> Path:
    """Return the folder of torch.hub's files; imports no torch."""
    if "torch.hub" in sys.modules:
        return Path(sys.modules["torch.hub"].get_dir())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return (Path(os.environ.get("TORCH_HOME") or cache) / "hub").expanduser()
