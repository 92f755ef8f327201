"""Fetch models of the Hugging Face Hub into its cache, or find them there.

A repository holds what :func:`splitzoo.zoo.save` writes, and a card. ``huggingface_hub`` downloads
and keeps the files; what it does not do by itself is here: all files of a model come from one
commit, ``config.json`` first, and where that cannot be used the weights are not fetched; a new
commit is noted only when it is whole, so that an incomplete one never hides the whole one before;
weights are checked against the config's SHA-256. One request tells which commit a branch is at;
none is made for a commit at hand, for ``local_files_only`` and under ``HF_HUB_OFFLINE``.
"""

import contextlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from splitrun.errors import HubError, ModelFolderError, OutputError
from splitrun.files import new_file, sha256_file

from .. import __version__
from .config import CONFIG_NAME, MAX_CONFIG_BYTES, WEIGHTS_NAME, ModelConfig, read_config
from .hub_errors import describe, hub_calls, is_outage, not_at_hand
from .hub_names import Repo, checked_token, hub_name, parse_repo

__all__ = ["Repo", "fetch_model", "hub_name", "is_cached", "parse_repo"]

_log = logging.getLogger(__name__)
_LIBRARY: dict[str, Any] = {"library_name": "splitzoo", "library_version": __version__}


def fetch_model(
    repo: Repo,
    *,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    config_only: bool = False,
) -> Path:
    """Fetch a model into the Hub's cache, or find it there.

    A download that is cut goes on where it stopped, within this call; processes that fetch the same
    file at once wait for one another. Where the Hub cannot be reached, the commit that it named
    last is taken from the cache, and a warning is logged.

    Args:
        repo: Repository of the model.
        token: Token; by default the one of ``HF_TOKEN`` or of ``hf auth login``.
        cache_dir: Folder of the Hub's files; by default ``HF_HUB_CACHE``.
        local_files_only: Make no request.
        config_only: Fetch ``config.json`` alone.

    Returns:
        A folder that holds ``config.json`` and the ``model.safetensors`` that it names.

    Raises:
        WeightsNotFoundError: Nothing is published for a registered model, or no request may be made
            and the cache holds no whole copy.
        HubError: The Hub or the way to it failed, or the repository holds no model that can be
            used.
    """
    cache = hub_cache(cache_dir)
    files = (CONFIG_NAME,) if config_only else (CONFIG_NAME, WEIGHTS_NAME)
    with hub_calls(repo, cache):
        token = checked_token(token)
        commit = _commit(repo, files, token, cache, local_files_only)
        folder = _take(repo, CONFIG_NAME, commit, token, cache).parent
        config = _read_config(repo, folder)
        if not config_only:
            _check_weights(repo, _take(repo, WEIGHTS_NAME, commit, token, cache), config)
            _note(repo, folder)
    return folder


def fetch_file(
    repo: Repo, name: str, *, cache_dir: str | Path | None = None, local_files_only: bool = False
) -> Path | None:
    """Fetch one file of a repository that is not ours, or find it, as :func:`fetch_model` does.

    Returns:
        The file; None where the repository has none of that name.

    Raises:
        WeightsNotFoundError: No request may be made, and the file is not in the cache.
        HubError: The Hub or the way to it failed.
    """
    from huggingface_hub.errors import EntryNotFoundError

    cache = hub_cache(cache_dir)
    with hub_calls(repo, cache):
        token = checked_token(None)
        try:
            commit = _commit(repo, (name,), token, cache, local_files_only)
            path = _take(repo, name, commit, token, cache)
        except EntryNotFoundError:
            return None
        _note(repo, path.parent)
    return path


def _take(repo: Repo, name: str, commit: str, token: str | None, cache: Path) -> Path:
    """Return a file of one commit, from the cache or the Hub."""
    from huggingface_hub import constants, hf_hub_download

    # Even for a file at hand, hf_hub_download would look for news of its own.
    return cached_file(repo.repo_id, name, commit, cache) or Path(
        hf_hub_download(
            repo.repo_id,
            name,
            revision=commit,
            cache_dir=cache,
            token=token,
            etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
            **_LIBRARY,
        )
    )


def is_cached(name_or_repo: str, *, cache_dir: str | Path | None = None) -> bool:
    """Say whether the cache holds a whole copy of a model, given by name or repository.

    No request is made.

    Raises:
        HubError: It names no repository.
    """
    repo = parse_repo(name_or_repo if "/" in name_or_repo else hub_name(name_or_repo))
    files = (CONFIG_NAME, WEIGHTS_NAME)
    return all(cached_file(repo.repo_id, f, repo.revision, hub_cache(cache_dir)) for f in files)


def hub_cache(cache_dir: str | Path | None) -> Path:
    """Return the folder of the Hub's files."""
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()


def cached_file(repo_id: str, name: str, revision: str, cache: Path) -> Path | None:
    """Return a file of a repository in the Hub's cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo_id, name, cache_dir=cache, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _commit(repo: Repo, files: tuple[str, ...], token: str | None, cache: Path, local: bool) -> str:
    """Return the hash of the commit to take the files from."""
    from huggingface_hub import constants

    at_hand = [cached_file(repo.repo_id, name, repo.revision, cache) for name in files]
    cached = at_hand[0].parent.name if at_hand[0] and all(at_hand) else None
    if local or constants.HF_HUB_OFFLINE:
        if cached is None:
            reason = "local_files_only" if local else "HF_HUB_OFFLINE"
            raise not_at_hand(repo, cache, f"{reason} is set")
        return cached
    if cached is not None and cached == repo.revision:
        return cached
    try:
        return _current_commit(repo, files[0], token)
    except Exception as error:
        if cached is None or not is_outage(error):
            raise
        _log.warning(
            "%s: %s. The copy in the cache is used, commit %.7s.", repo, describe(error), cached
        )
        return cached


def _current_commit(repo: Repo, name: str, token: str | None) -> str:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import FileMetadataError

    # Unlike hf_hub_download this asks once, so that an outage is known at once.
    found = get_hf_file_metadata(
        hf_hub_url(repo.repo_id, name, revision=repo.revision),
        token=token,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        **_LIBRARY,
    )
    if not re.fullmatch("[0-9a-f]{40}", found.commit_hash or ""):
        raise FileMetadataError("no commit hash")
    if name == CONFIG_NAME and (found.size or 0) > MAX_CONFIG_BYTES:
        raise HubError(
            f"{repo} is no saved model of splitzoo: its {CONFIG_NAME} has {found.size} bytes."
        )
    return found.commit_hash or ""


def _note(repo: Repo, folder: Path) -> None:
    noted = folder.parents[1] / "refs" / repo.revision
    if repo.revision == folder.name or (noted.is_file() and noted.read_text() == folder.name):
        return
    with contextlib.suppress(OutputError), new_file(noted, force=True) as temporary:
        temporary.write_text(folder.name)


def _read_config(repo: Repo, folder: Path) -> ModelConfig:
    # read_config says what is wrong with a file that is no JSON.
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads((folder / CONFIG_NAME).read_bytes())
        if isinstance(content, dict) and content.get("library_name") != "splitzoo":
            raise HubError(
                f"{repo} is no saved model of splitzoo: its {CONFIG_NAME} is another library's."
            )
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
