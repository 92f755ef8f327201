"""One device half and several edge halves: models that share an encoder, in one bundle."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from splitrun.bundle import Bundle, new_bundle, open_bundle
from splitrun.errors import SpecError
from splitrun.files import check_free, sha256_file
from splitrun.manifest import TAIL_NAME, GraphInfo, Manifest, TailInfo
from splitrun.preprocessing import Preprocessing

from ..progress import SILENT, Progress
from ..zoo.resolve import ModelSource
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from .splitting import bundle_page, split, task_name

Model = SplitModel | str | Path


def split_tails(
    model: Model,
    tails: Sequence[tuple[str, Model]],
    folder: str | Path,
    *,
    force: bool = False,
    progress: Progress = SILENT,
    **options: Any,
) -> Manifest:
    """Write a bundle whose edge reads the streams of one device half with several tails.

    Each model is exported and compared with PyTorch as :func:`split` does it.

    Args:
        model: Model whose device half is taken.
        tails: Names of further tails, and their models, which have the same encoder and entropy
            coder. An empty name stands for the task's, or where that is taken the backbone's.
        folder: Folder to write; without force it must be empty or not exist.
        force: Replace the bundle that the folder holds.
        progress: Listener that is told of each step.
        options: Other arguments of :func:`split`, but ``half``.

    Returns:
        The manifest, as written.

    Raises:
        SpecError: A model has another cut, input, encoder or coder than the first; or two tails
            would have one name.
        SplitzooError: See :func:`split`.
    """
    folder = Path(folder)
    check_free(folder, force=force)
    first, others = _load(model), [_load(other) for _, other in tails]
    given = [name for name, _ in tails]
    names = _tail_names(first.spec, given, [other.spec for other in others])
    for other in others:
        check_same_device(first, other)
    with new_bundle(folder, force=force) as destination:
        split(first, destination, progress=progress, force=True, **options)
        joined = open_bundle(destination)
        for name, other in zip(names, others, strict=True):
            progress.step(f"tail {name}: {other.spec.name}")
            alone = destination / ".tail"
            split(other, alone, progress=progress, **options)
            joined = join(joined, name, open_bundle(alone))
            shutil.rmtree(alone)
        page = destination / "README.md"
        page.write_text(bundle_page(joined.manifest), encoding="utf-8")
        files = joined.manifest.files | {"README.md": sha256_file(page)}
        manifest = replace(joined.manifest, files=files)
        manifest.write(destination)
    return manifest


def join(bundle: Bundle, name: str, other: Bundle) -> Bundle:
    """Add the only tail of another bundle, and return the bundle as it is then.

    Raises:
        SpecError: The two have other device halves or tables.
    """
    ours, theirs = bundle.manifest, other.manifest
    shared = [*ours.device.graph.files, ours.coding.tables]
    if differing := [path for path in shared if ours.files[path] != theirs.files.get(path)]:
        raise SpecError(
            f"{ours.spec['name']} and {theirs.spec['name']} share no device half: "
            f"{', '.join(differing)} differs."
        )
    (tail,) = theirs.edge.tails.values()
    moved = {path: f"edge/{name}/{path.removeprefix('edge/')}" for path in _files(tail)}
    (bundle.folder / "edge" / name).mkdir()
    for path, place in moved.items():
        shutil.copyfile(other.checked_path(path), bundle.folder / place)
    info = replace(
        tail,
        graph=_moved(tail.graph, moved),
        boxes=_moved(tail.boxes, moved) if tail.boxes else None,
        labels=moved[tail.labels],
        selftest=moved[tail.selftest],
        spec=theirs.spec,
        provenance=theirs.provenance,
    )
    edge = replace(ours.edge, tails=ours.edge.tails | {name: info})
    worst = max(one.parity.output_max_relative_error for one in (ours, theirs))
    allowed = max(one.parity.limits.output_tolerance for one in (ours, theirs))
    limits = replace(ours.parity.limits, output_tolerance=allowed)
    manifest = replace(
        ours,
        edge=edge,
        parity=replace(ours.parity, output_max_relative_error=worst, limits=limits),
        files=ours.files | {place: theirs.files[path] for path, place in moved.items()},
    )
    manifest.write(bundle.folder)
    return open_bundle(bundle.folder)


def check_same_device(first: SplitModel, other: SplitModel) -> None:
    """Check that two models have the same device half.

    Raises:
        SpecError: Cut, preprocessing, encoder or entropy coder differ; both are named.
    """
    for what, ours, theirs in (
        ("takes images", *(_input(one.spec.preprocessing) for one in (first, other))),
        ("reads", *(", ".join(map(str, one.spec.wire)) for one in (first, other))),
    ):
        if ours != theirs:
            raise SpecError(
                f"{other.spec.name} cannot be a tail of {first.spec.name}: it {what} {theirs}, "
                f"and {first.spec.name} {ours}."
            )
    ids = [one.codec.stream_id.hex() for one in (first, other)]
    if ids[0] != ids[1]:
        raise SpecError(
            f"{other.spec.name} cannot be a tail of {first.spec.name}: its encoder or coder "
            f"is another (streams {ids[1]}, not {ids[0]}).",
            next_step="Train it with the other's encoder and bottleneck frozen: start and frozen "
            "in its recipe.",
        )


def _input(given: Preprocessing) -> str:
    values = (f"{value:g}" for value in (*given.mean, *given.std, *given.padding))
    return f"{given.summary()}, with mean, deviation and padding {' '.join(values)}"


def _load(model: Model) -> SplitModel:
    return model if isinstance(model, SplitModel) else ModelSource.of(model).load()


def _tail_names(first: ModelSpec, given: Sequence[str], specs: Sequence[ModelSpec]) -> list[str]:
    taken = [task_name(first)]
    for name, spec in zip(given, specs, strict=True):
        own = task_name(spec)
        chosen = name or (spec.backbone.lower().replace("_", "-") if own in taken else own)
        if not TAIL_NAME.fullmatch(chosen):
            raise SpecError(
                f"A tail cannot be named {chosen!r}: its name has small letters, digits and '-'."
            )
        if chosen in taken:
            raise SpecError(
                f"Two tails would be named {chosen}.",
                next_step=f"Name one: --with NAME={spec.name}",
            )
        taken.append(chosen)
    return taken[1:]


def _moved(graph: GraphInfo, places: Mapping[str, str]) -> GraphInfo:
    weights = None if graph.weights is None else places[graph.weights]
    return replace(graph, file=places[graph.file], weights=weights)


def _files(tail: TailInfo) -> list[str]:
    graphs = [file for graph in tail.graphs.values() for file in graph.files]
    return [*graphs, tail.labels, tail.selftest]
