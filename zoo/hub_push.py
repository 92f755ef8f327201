"""Publish a saved model on the Hugging Face Hub."""

from pathlib import Path

from splitrun.errors import HubError

from .. import __version__
from .hub_errors import hub_calls
from .hub_names import checked_token, parse_repo

CARD_NAME = "README.md"
RECORD_NAME = "card.json"
SPLIT_NAME = "split"
CURVE_NAME = "rd"
"""Drawings of a card: ``NAME.svg`` for a light page, ``NAME-dark.svg`` for a dark one."""
BITS_NAME = "bits.png"
DRAWINGS = tuple(f"{name}{page}.svg" for name in (SPLIT_NAME, CURVE_NAME) for page in ("", "-dark"))


def push_model(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
    card: str | Path | None = None,
) -> str:
    """Publish a saved model in one commit; the repository is made if it does not exist.

    Config, weights, card, its record and its images are sent, and nothing else of the folder.

    Args:
        folder: Folder of the model.
        repo_id: Repository, ``"org/name"``.
        private: Make it a private repository. One that exists must be private already.
        token: Token with the right to write; by default the one of ``HF_TOKEN`` or
            ``hf auth login``.
        message: Message of the commit.
        card: A ``README.md``, or a folder that holds one, with its images beside it; by default
            the model's folder.

    Returns:
        The address of the repository.

    Raises:
        ModelFolderError: The folder holds no model that can be loaded; no request was made.
        HubError: The Hub refused, or cannot be reached.
    """
    from .config import CONFIG_NAME, WEIGHTS_NAME
    from .store import load_folder

    folder, repo = Path(folder), parse_repo(repo_id)
    if repo_id != repo.repo_id:
        raise HubError(
            "Models are pushed to the main branch.", next_step=f"Name just {repo.repo_id}"
        )
    token = checked_token(token)
    name = load_folder(folder).spec.name
    files = {file: folder / file for file in (CONFIG_NAME, WEIGHTS_NAME)}
    files |= _card_files(folder if card is None else Path(card), wanted=card is not None)
    with hub_calls(repo, folder, pushing=True):
        from huggingface_hub import CommitOperationAdd, HfApi, constants

        hub = HfApi(token=token, library_name="splitzoo", library_version=__version__)
        # None, since False would override what an organisation has as its default.
        hub.create_repo(repo.repo_id, private=private or None, exist_ok=True)
        if private and not hub.model_info(repo.repo_id).private:
            raise HubError(
                f"{repo} exists already and is public; nothing was pushed.",
                next_step="Name another, make it private in its settings, or leave out --private.",
            )
        hub.create_commit(
            repo.repo_id,
            [CommitOperationAdd(file, path) for file, path in files.items()],
            commit_message=message or f"Add {name} by splitzoo {__version__}",
        )
        return f"{constants.ENDPOINT}/{repo.repo_id}"


def _card_files(place: Path, *, wanted: bool) -> dict[str, Path]:
    card = place / CARD_NAME if place.is_dir() else place
    if not card.is_file():
        if wanted:
            raise HubError(f"There is no card at {card}.", next_step="splitzoo cards build")
        return {}
    others = [card.with_name(name) for name in (RECORD_NAME, *DRAWINGS, BITS_NAME)]
    return {CARD_NAME: card} | {other.name: other for other in others if other.is_file()}
