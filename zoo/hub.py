"""Models of the Hugging Face Hub: fetch them into its cache, find them there.

A repository holds what :func:`splitzoo.zoo.save` writes, and a card. A model's files all come from
one commit, ``config.json`` first: where that cannot be used, the weights are not fetched. One
request tells which commit a branch is at; none is made for a commit hash at hand, for
``local_files_only`` and under ``HF_HUB_OFFLINE``.
"""

import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from splitrun.errors import HubError, ModelFolderError, OutputError
from splitrun.files import new_file, sha256_file

from .. import __version__
from .config import CONFIG_NAME, MAX_CONFIG_BYTES, WEIGHTS_NAME, ModelConfig, read_config
from .hub_errors import describe, hub_calls, is_outage, not_at_hand
from .hub_names import Repo, checked_token, hub_name, is_commit, parse_repo

__all__ = ["Repo", "fetch_config", "fetch_model", "hub_name", "is_cached", "parse_repo"]

_log = logging.getLogger(__name__)


def fetch_model(
    repo: Repo,
    *,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch a model into the Hub's cache, or find it there.

    A download that is cut goes on where it stopped, within this call; processes that fetch the same
    file at once wait for one another. Where the Hub cannot be reached, the commit that it named
    last is taken from the cache, and a warning is logged.

    Args:
        repo: Of the model.
        token: By default the one of ``HF_TOKEN`` or of ``hf auth login``.
        cache_dir: By default ``HF_HUB_CACHE``.
        local_files_only: Make no request.

    Returns:
        A folder that holds ``config.json`` and the ``model.safetensors`` that it names.

    Raises:
        WeightsNotFoundError: Nothing is published for a registered model, or no request may be made
            and the cache holds no whole copy.
        HubError: The Hub or the way to it failed, or the repository holds no model that can be
            used.
    """
    cache = _cache(cache_dir)
    with hub_calls(repo, cache):
        fetch = _Fetch(repo, cache, checked_token(token), local_files_only)
        commit = fetch.commit(CONFIG_NAME, WEIGHTS_NAME)
        config = _read_config(repo, fetch.file(commit, CONFIG_NAME).parent)
        weights = fetch.file(commit, WEIGHTS_NAME)
        _check_weights(repo, weights, config)
        _note(repo, weights.parent)
    return weights.parent


def fetch_config(
    repo: Repo,
    *,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetch ``config.json`` alone; see :func:`fetch_model`.

    Returns:
        A folder that holds it.
    """
    cache = _cache(cache_dir)
    with hub_calls(repo, cache):
        fetch = _Fetch(repo, cache, checked_token(token), local_files_only)
        folder = fetch.file(fetch.commit(CONFIG_NAME), CONFIG_NAME).parent
        _read_config(repo, folder)
    return folder


def is_cached(name_or_repo: str, *, cache_dir: str | Path | None = None) -> bool:
    """Say whether the cache holds a whole copy of a model; no request is made.

    Args:
        name_or_repo: A registered name, ``"org/name"`` or ``"org/name@revision"``.
        cache_dir: By default ``HF_HUB_CACHE``.

    Raises:
        HubError: It names no repository.
    """
    repo = parse_repo(name_or_repo if "/" in name_or_repo else hub_name(name_or_repo))
    return _cached_commit(repo, _cache(cache_dir), CONFIG_NAME, WEIGHTS_NAME) is not None


@dataclass(frozen=True)
class _Fetch:
    repo: Repo
    cache: Path
    token: str | None
    local: bool

    def commit(self, *files: str) -> str:
        """Return the hash of the commit to take the files from."""
        from huggingface_hub import constants

        cached = _cached_commit(self.repo, self.cache, *files)
        if self.local or constants.HF_HUB_OFFLINE:
            if cached is None:
                reason = "local_files_only" if self.local else "HF_HUB_OFFLINE"
                raise not_at_hand(self.repo, self.cache, f"{reason} is set")
            return cached
        if cached is not None and cached == self.repo.revision:
            return cached
        try:
            return self._current_commit()
        except Exception as error:
            if cached is None or not is_outage(error):
                raise
            _log.warning(
                "%s: %s. The copy in the cache is used, commit %.7s.",
                self.repo,
                describe(error),
                cached,
            )
            return cached

    def file(self, commit: str, name: str) -> Path:
        """Return the path of a file in the cache, where it is downloaded to if it is missing."""
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

        # Even for a file at hand, hf_hub_download would look for news of its own.
        path = try_to_load_from_cache(
            self.repo.repo_id, name, cache_dir=self.cache, revision=commit
        )
        if not isinstance(path, str):
            path = hf_hub_download(
                self.repo.repo_id,
                name,
                revision=commit,
                cache_dir=self.cache,
                token=self.token,
                etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
                library_name="splitzoo",
                library_version=__version__,
            )
        return Path(path)

    def _current_commit(self) -> str:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import FileMetadataError

        # Unlike hf_hub_download this asks once, so that an outage is known at once.
        found = get_hf_file_metadata(
            hf_hub_url(self.repo.repo_id, CONFIG_NAME, revision=self.repo.revision),
            token=self.token,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            library_name="splitzoo",
            library_version=__version__,
        )
        if not is_commit(found.commit_hash or ""):
            raise FileMetadataError("no commit hash")
        if (found.size or 0) > MAX_CONFIG_BYTES:
            raise HubError(
                f"{self.repo} is no saved model of splitzoo: its {CONFIG_NAME} has {found.size} "
                "bytes."
            )
        return found.commit_hash or ""


def _cache(cache_dir: str | Path | None) -> Path:
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()


def _cached_commit(repo: Repo, cache: Path, *files: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    paths = [
        try_to_load_from_cache(repo.repo_id, name, cache_dir=cache, revision=repo.revision)
        for name in files
    ]
    if not all(isinstance(path, str) for path in paths):
        return None
    return Path(str(paths[0])).parent.name


def _note(repo: Repo, folder: Path) -> None:
    # Only now, with all files at hand: noted earlier, a new commit of which a part is missing would
    # hide the whole one before it.
    noted = folder.parents[1] / "refs" / repo.revision
    if repo.revision == folder.name or (noted.is_file() and noted.read_text() == folder.name):
        return
    with contextlib.suppress(OutputError), new_file(noted) as temporary:
        temporary.write_text(folder.name)


def _read_config(repo: Repo, folder: Path) -> ModelConfig:
    try:
        content = json.loads((folder / CONFIG_NAME).read_bytes())
        if isinstance(content, dict) and content.get("library_name") != "splitzoo":
            raise HubError(
                f"{repo} is no saved model of splitzoo: its {CONFIG_NAME} is another library's."
            )
    except (ValueError, RecursionError):
        pass  # read_config says what is wrong with it
    try:
        return read_config(folder)
    except ModelFolderError as error:
        raise HubError(f"Cannot use {repo}: {error.message}", next_step=error.next_step) from error


def _check_weights(repo: Repo, weights: Path, config: ModelConfig) -> None:
    found = sha256_file(weights)
    if found == config.weights_sha256:
        return
    for pointer in (weights, weights.with_name(CONFIG_NAME)):
        blob = pointer.resolve()
        pointer.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
    raise HubError(
        f"{repo}: {WEIGHTS_NAME} was changed or damaged: its SHA-256 is {found[:12]}…, "
        f"{CONFIG_NAME} says {config.weights_sha256[:12]}….",
        next_step="It was removed from the cache. Try again; if it comes back, tell who published "
        "the model.",
    )
