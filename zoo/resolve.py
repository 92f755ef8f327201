"""Find the model that a user names: a registered name, a folder, a bundle, or a Hub repository.

Every command and :func:`splitzoo.zoo.load` go through :class:`ModelSource`. Imports no torch.
"""

import contextlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.bundle_layout import MANIFEST_NAME
from splitrun.errors import SpecError, UnknownNameError, WeightsNotFoundError
from splitrun.text import visible

from .config import ModelConfig, read_config
from .models import find_spec, is_name, registered
from .packaged import packaged_folder, whole_network
from .spec import ModelSpec

if TYPE_CHECKING:
    from .split_model import SplitModel

DEFAULT_MODEL = "svbi_tf_efficientnet_lite0-fp-beta1"
"""The model that is taken where none is named. Its weights and its tail's come with the package."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from; made by :meth:`of`. One of the first four is set.

    Attributes:
        name: Registered name, alias, or name of a family.
        folder: Folder of a saved model; it exists.
        bundle: Folder of a bundle; it exists.
        repository: Hub repository, ``"org/name"`` or ``"org/name@revision"``.
        revision: Revision of the repository that holds a registered model's weights.
        cache_dir: Folder of the Hub's files.
        token: Token for private repositories.
        local_files_only: Whether requests are forbidden.
        given: What the user wrote.
    """

    name: str | None = None
    folder: Path | None = None
    bundle: Path | None = None
    repository: str | None = None
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | None = None
    local_files_only: bool = False
    given: str = field(default="", compare=False)

    @classmethod
    def of(
        cls,
        given: str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "ModelSource":
        """Tell what is meant; only the local file system is looked at.

        A name, registered or of a family, is one even where a folder of that name lies; written
        as a path, ``./name``, it is the folder.

        Args:
            given: A name, folder or repository; by default the default model. The other arguments
                are those of :func:`splitzoo.zoo.load`.

        Raises:
            UnknownNameError: A path is meant and no folder is there; or a revision is asked of a
                folder, or of a repository that names one already.
        """
        given = DEFAULT_MODEL if given is None else given
        place = _place(given)
        if place.repository:
            if revision and "@" in place.repository:
                raise UnknownNameError(
                    "revision", revision, next_step=f"{given} names one already: leave one out."
                )
            repository = f"{place.repository}@{revision}" if revision else place.repository
            place, revision = replace(place, repository=repository), None
        elif place.name is None and revision:
            raise UnknownNameError(
                "revision", revision, next_step=f"The folder {given} has none: leave it out."
            )
        return replace(
            place,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            given=str(given),
        )

    @property
    def is_assembled(self) -> bool:
        """Whether the model is made of published parts when it is loaded."""
        return (
            self.name is not None
            and is_assembled(spec := find_spec(self.name))
            and packaged_folder(spec.name) is None
            and whole_network(spec.name) is None
        )

    @property
    def is_at_hand(self) -> bool:
        """Whether the weights lie on this machine; no request is made."""
        if self.name is not None and self.revision is None:
            from .catalog import has_weights

            return has_weights(self.name)
        return bool(self.folder or self.bundle)

    def spec(self) -> ModelSpec:
        """Return the model's spec; see :func:`splitzoo.zoo.get_spec` for errors.

        Of a repository, ``config.json`` alone is fetched.
        """
        return self.config().spec if self.name is None else find_spec(self.name)

    def config(self) -> ModelConfig:
        """Return the ``config.json`` of a folder or repository; see :meth:`spec` for errors."""
        folder = self.folder or self.bundle
        if folder is None:
            folder = self._download(self.repository or "", config_only=True)
        return read_config(folder)

    def _download(self, repository: str, *, config_only: bool = False) -> Path:
        from .hub import fetch_model, parse_repo

        return fetch_model(
            parse_repo(repository),
            cache_dir=self.cache_dir,
            token=self.token,
            local_files_only=self.local_files_only,
            config_only=config_only,
        )

    def fetch(self) -> Path:
        """Return the folder of the saved model; see :func:`splitzoo.zoo.fetch`."""
        spec = find_spec(self.name) if self.name is not None else None
        carried = packaged_folder(spec.name) if spec and self.revision is None else None
        if folder := self.folder or self.bundle or carried:
            return folder
        if spec is None:
            return self._download(self.repository or "")
        if is_assembled(spec):
            raise WeightsNotFoundError(
                spec.name,
                "it is made of published parts, and no repository holds it",
                next_step=f"Fetch the parts: splitzoo zoo pull {spec.name}, or zoo.load.",
            )
        from .hub_names import hub_name

        return self._download(hub_name(spec.name) + (f"@{self.revision}" if self.revision else ""))

    def load(self, *, seed: int | None = None) -> "SplitModel":
        """Load the model, in evaluation mode.

        Args:
            seed: Seed for random weights; by default the trained ones are loaded.

        Raises:
            SplitzooError: See :func:`splitzoo.zoo.load`.
        """
        from .parts import build

        model = self._load_trained() if seed is None else build(self.spec(), seed=seed)
        model.source = visible(self.given or self.name or "", keep="")
        return model

    def _load_trained(self) -> "SplitModel":
        from .parts import build
        from .pretrained import assemble, recode
        from .store import load_folder

        if self.name is not None:
            spec = find_spec(self.name)
            if whole := whole_network(spec.name):
                return recode(ModelSource(name=whole).load(), build(spec))
            if self.is_assembled:
                if self.revision is not None:
                    raise SpecError(
                        f"{spec.name} has no revisions: it is made of published parts.",
                        next_step="Leave the revision out.",
                    )
                return assemble(
                    build(spec), cache_dir=self.cache_dir, local_files_only=self.local_files_only
                )
        return load_folder(self.fetch())


def _place(given: str | Path) -> ModelSource:
    text, path = str(given), Path(given)
    if isinstance(given, str) and text in registered():
        return ModelSource(name=text)
    with contextlib.suppress(OSError):  # a name too long for a file system
        if text and path.is_dir():
            if isinstance(given, str) and "/" not in text and is_name(text):
                return ModelSource(name=text)
            bundle = (path / MANIFEST_NAME).is_file()
            return ModelSource(bundle=path) if bundle else ModelSource(folder=path)
    local = isinstance(given, Path) or text.startswith((".", "/", "~")) or "\\" in text
    if not local and _REPOSITORY.fullmatch(text):
        return ModelSource(repository=text)
    if local or "/" in text:
        raise UnknownNameError(
            "model folder", text, next_step="Give a folder that holds config.json, or a name."
        )
    return ModelSource(name=text)


def is_assembled(spec: ModelSpec) -> bool:
    """Say whether a model is put together from published parts, none of which was trained for it.

    Input and feature compression are: their backbones come from timm and torchvision, their
    learned codecs from CompressAI.
    """
    return spec.method in ("input-compression", "feature-compression")
