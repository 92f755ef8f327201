"""What is served, by name and by the id in streams; what of it can be said without running it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..bundle import Bundle, open_bundle
from ..bundle_layout import MANIFEST_NAME
from ..coding.stream import read_stream
from ..errors import ForeignStreamError, RequestError, UnknownNameError
from ..halves import check_code
from ..manifest import TailInfo
from .answers import Answer
from .questions import Question
from .settings import Settings


@dataclass(frozen=True)
class Source:
    """A bundle to serve.

    Attributes:
        folder: Folder of the bundle.
        name: Name to serve it under; None takes its model's.
        trust: Whether its graphs are run whatever they hold.
    """

    folder: Path
    name: str | None = None
    trust: bool = False

    def open(self) -> Bundle:
        """Open the bundle.

        Raises:
            BundleError: It cannot be opened, or can hold code.
        """
        bundle = open_bundle(self.folder, trust=self.trust)
        if not self.trust:
            check_code(bundle)
        return bundle

    def mark(self) -> tuple[int, ...] | None:
        """Return what differs when the bundle is replaced; None where there is none."""
        try:
            found = (self.folder / MANIFEST_NAME).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class NamedModel(ABC):
    """A bundle under a name.

    Attributes:
        bundle: The bundle.
        name: Name that it is served under.
        tails: Its tails by name.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        """Open a bundle.

        Raises:
            BundleError: It cannot be opened, lacks the edge half, or can hold code.
        """
        self.bundle = source.open()
        self.name = source.name or self.bundle.name
        self.tails: dict[str, TailInfo] = self.bundle.edge.tails
        self._max_batch = settings.max_batch

    @property
    def stream_id(self) -> str:
        """Id in the streams, 8 hexadecimal digits."""
        return self.bundle.manifest.coding.stream_id

    def tail_name(self, tail: str | None) -> str:
        """Return the name of the tail that is asked for; None is the only one.

        Raises:
            RequestError: None is named, and there are several.
            UnknownNameError: There is no such tail.
        """
        if tail is None:
            if len(self.tails) > 1:
                names = ", ".join(self.tails)
                raise RequestError(
                    f"{self.name} has several tails.", next_step=f"Name one with ?tail=: {names}."
                )
            return next(iter(self.tails))
        if tail not in self.tails:
            names = ", ".join(self.tails)
            raise UnknownNameError("tail", tail, next_step=f"{self.name} has: {names}.")
        return tail

    def tail_label(self, tail: str | None) -> str:
        """Return the name of a tail for counters; empty where it is none."""
        if tail is None and len(self.tails) == 1:
            return next(iter(self.tails))
        return tail if tail in self.tails else ""

    def batch(self, tail: str) -> int:
        """Return the number of streams that the graph of a tail runs at once, at most."""
        return self._max_batch if self.tails[tail].graph.inputs[0].shape[0] == -1 else 1

    @abstractmethod
    async def answer(self, stream: bytes, tail: str | None, question: Question) -> Answer:
        """Answer one stream.

        Raises:
            BitstreamError: It is damaged, hostile or of another model.
            SplitzooError: What :meth:`tail_name` raises, or the bundle failed.
        """

    def description(self) -> dict[str, Any]:
        """Return what ``/v1/models`` says of it."""
        manifest = self.bundle.manifest
        height, width = manifest.preprocessing.crop
        return {
            "name": self.name,
            "stream_id": self.stream_id,
            "target": manifest.target,
            "edge_precision": manifest.edge.precision,
            "weights": manifest.provenance.weights,
            "tails": {
                name: {
                    "task": manifest.task_of(tail),
                    "engine": tail.graph.engine,
                    "classes": len(self.bundle.labels(tail)),
                    "batch": self.batch(name),
                }
                for name, tail in self.tails.items()
            },
            "input": {"height": height, "width": width, "latent": list(manifest.coding.shape)},
        }


def check_names(names: Sequence[str]) -> None:
    """Raise ``RequestError`` where two bundles have one name."""
    for name in names:
        if names.count(name) > 1:
            raise RequestError(
                f"Two bundles have the name {name}.", next_step="Give one another: NAME=BUNDLE"
            )


M = TypeVar("M", bound=NamedModel)


class ModelList(Generic[M]):
    """The models of a server.

    Raises:
        RequestError: Two have one name.
    """

    def __init__(self, models: Sequence[M]) -> None:
        self._served = list(models)
        check_names([model.name for model in models])

    def __iter__(self) -> Iterator[M]:
        return iter(self._served)

    def named(self, name: str) -> M:
        """Return the model of a name or id.

        Raises:
            UnknownNameError: There is none.
        """
        for model in self._served:
            if name == model.name:
                return model
        for model in self._served:
            if name == model.stream_id:
                return model
        names = ", ".join(model.name for model in self._served)
        raise UnknownNameError("model", name[:200], next_step=f"Here are: {names}.")

    def of_stream(self, stream: bytes) -> M:
        """Return the model that a stream is of; of several bundles of it, the first.

        Raises:
            BitstreamError: The stream is damaged, or of none.
        """
        stream_id = read_stream(stream).stream_id.hex()
        for model in self._served:
            if model.stream_id == stream_id:
                return model
        served = ", ".join(f"{model.stream_id} ({model.name})" for model in self._served)
        raise ForeignStreamError(
            f"The stream is of model {stream_id}; here are {served}.",
            next_step="Send it to the server of the bundle that wrote it.",
        )
