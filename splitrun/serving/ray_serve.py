"""The edge server on a Ray cluster: ``serve run splitrun.serving.ray_serve:edge bundles=server``.

::

    request ─► Ray's proxy ─► front: the paths of ``splitrun serve`` ─► replicas of each tail
                              one process                               as many as there is work for

https://docs.ray.io/en/latest/serve
"""

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..arguments import named_bundle, whole_number
from ..errors import DependencyError, SplitzooError, UsageError
from ..halves import Edge, Tensors
from ..record import EdgeRecord
from .answers import Answer, answer
from .app import Service
from .batches import Waiting
from .metrics import Metrics
from .named_models import ModelList, NamedModel, Source, check_names
from .questions import Question
from .settings import READERS, Settings
from .tokens import read_tokens

if TYPE_CHECKING:
    from ray.serve import Application  # pyright: ignore[reportMissingImports]


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


_SETTINGS = (
    *("token_file", "max_batch", "max_delay_ms", "max_queue", "max_body", "max_streams"),
    *("body_timeout_s", "answer_timeout_s", "remember"),
)
_ARGUMENTS: dict[str, Callable[[str], Any]] = {
    "bundles": lambda text: [named_bundle(bundle) for bundle in text.split(",")],
    "trust": _yes_or_no,
    "max_replicas": whole_number(1, 1 << 16),
    "threads": whole_number(1, 1024),
    **{name: READERS[name] for name in _SETTINGS},
}


def edge(arguments: Mapping[str, Any]) -> "Application":
    """Build the application that ``serve run`` and ``serve deploy`` start.

    Args:
        arguments: By name: ``bundles``, each ``[NAME=]BUNDLE``, with commas between them, whose
            folders lie on each machine of the cluster; ``trust``, to run graphs whatever they
            hold; ``max_replicas`` of a tail; and those of :class:`Settings` that do not say where
            to listen: ``threads`` of a replica's engine, which are the cores that Ray counts for
            it, ``max_batch``, ``max_delay_ms``, ``max_queue`` and so on.

    Raises:
        SplitzooError: An argument, a bundle or the tokens cannot be used, or Ray is not installed.
    """
    read = _read(arguments)
    trust, max_replicas = read.pop("trust", False), read.pop("max_replicas", 4)
    sources = [Source(folder.resolve(), name, trust) for name, folder in read.pop("bundles")]
    settings = replace(Settings(threads=1), **read)
    if settings.token_file:
        settings = replace(settings, token_file=settings.token_file.resolve())
    read_tokens(settings.token_file)
    bundles = [source.open() for source in sources]
    names = [source.name or bundle.name for source, bundle in zip(sources, bundles, strict=True)]
    check_names(names)
    try:
        from ray import serve  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError(
            f"Ray Serve needs {error.name}.", next_step="pip install 'splitzoo[ray]'"
        ) from error
    replica = serve.deployment(
        Replica,
        ray_actor_options={"num_cpus": settings.threads},
        max_ongoing_requests=4 * settings.max_batch,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": max_replicas,
            "target_ongoing_requests": 2 * settings.max_batch,
        },
    )
    handles = []
    for source, name, bundle in zip(sources, names, bundles, strict=True):
        tails = list(bundle.edge.tails)
        names_of_tails = [name] if len(tails) == 1 else [f"{name}-{tail}" for tail in tails]
        handles.append(
            {
                tail: replica.options(name=own).bind(source, name, tail, settings)
                for tail, own in zip(tails, names_of_tails, strict=True)
            }
        )
    front = serve.deployment(
        serve.ingress(None)(Front),
        ray_actor_options={"num_cpus": 0},  # it waits: no core is kept for it
        max_ongoing_requests=settings.max_queue + 64,  # so that it is the one to refuse
    )
    return front.bind(sources, settings, handles)


def _read(arguments: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(arguments.keys() - _ARGUMENTS):
        known = ", ".join(_ARGUMENTS)
        raise UsageError(f"There is no argument {unknown[0]}.", next_step=f"There are: {known}.")
    if not arguments.get("bundles"):
        raise UsageError("There is no bundle.", next_step="Name one: bundles=BUNDLE")
    read = {}
    for name, value in arguments.items():
        try:
            read[name] = _ARGUMENTS[name](str(value))
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{name}: {error}.") from error
    return read


class Front:
    """The paths of ``splitrun serve``, whose models are deployments of Ray.

    Args:
        sources: Bundles.
        handles: What asks the replicas of each bundle, by tail.
    """

    def __init__(
        self, sources: Sequence[Source], settings: Settings, handles: Sequence[dict[str, Any]]
    ) -> None:
        metrics = Metrics()
        waiting = Waiting(settings.max_queue, metrics)
        models = ModelList(
            [
                _Deployed(source, settings, waiting, tails)
                for source, tails in zip(sources, handles, strict=True)
            ]
        )
        tokens = read_tokens(settings.token_file)
        self._service = Service(models, waiting, settings, metrics, tokens)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application that speaks ASGI; Ray asks for it when the process starts."""
        return self._service.app()


class _Deployed(NamedModel):
    """A bundle whose tails are deployments."""

    def __init__(
        self, source: Source, settings: Settings, waiting: Waiting, handles: dict[str, Any]
    ) -> None:
        super().__init__(source, settings)
        self._codec = self.bundle.codec()
        self._waiting, self._handles = waiting, handles

    async def answer(self, stream: bytes, tail: str | None, question: Question) -> Answer:
        """Answer one stream; see :meth:`NamedModel.answer`."""
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

        handle = self._handles[self.tail_name(tail)]
        self._codec.unframe(stream)  # refused here, it goes no further
        self._waiting.check_room()
        self._waiting.add(1)
        try:
            said: Answer | SplitzooError = await handle.answer.remote(stream, question)
        except RayError as error:  # its process was killed, or there is a fault in it
            reason = str(error).strip().splitlines()[-1]
            raise SplitzooError(f"A replica of {self.name} failed: {reason}") from error
        finally:
            self._waiting.add(-1)
        if isinstance(said, SplitzooError):
            raise said
        return said


class Replica:
    """One tail of a bundle, in a process of its own.

    Args:
        name: Name that the bundle is served under.
    """

    def __init__(self, source: Source, name: str, tail: str, settings: Settings) -> None:
        from ray import serve  # pyright: ignore[reportMissingImports]

        self._name, self._tail = name, tail
        self._bundle = source.open()
        self._edge = Edge(self._bundle, settings.threads, tail=tail)
        self._edge.predict(EdgeRecord.load(self._bundle, tail).stream)  # warm, and able to answer
        self._batched = serve.batch(
            self._answers,
            max_batch_size=settings.max_batch,
            batch_wait_timeout_s=settings.max_delay_ms / 1000,
            max_concurrent_batches=2,  # one is decoded while the other is in the graph
        )

    async def answer(self, stream: bytes, question: Question) -> Answer | SplitzooError:
        """Answer one stream, in a batch with others that wait.

        An error is returned: what is raised, Ray logs and wraps in its own.
        """
        return await self._batched(stream, question)

    async def _answers(
        self, streams: list[bytes], questions: list[Question]
    ) -> list[Answer | SplitzooError]:
        return await asyncio.to_thread(self._said, streams, questions)

    def _said(
        self, streams: list[bytes], questions: list[Question]
    ) -> list[Answer | SplitzooError]:
        said: dict[int, Answer | SplitzooError] = {}
        decoded: dict[int, Tensors] = {}
        for place, stream in enumerate(streams):
            try:
                decoded[place] = self._edge.decompress(stream)
            except SplitzooError as error:
                said[place] = error
        try:
            outputs = self._edge.graph.together(list(decoded.values())) if decoded else ()
        except SplitzooError as error:
            return [said.get(place, error) for place in range(len(streams))]
        for row, place in enumerate(decoded):
            own = [tensor[row : row + 1] for tensor in outputs]
            try:
                said[place] = answer(
                    self._name, self._bundle, self._edge, self._tail, own, questions[place], {}
                )
            except SplitzooError as error:
                said[place] = error
        return [said[place] for place in range(len(streams))]
