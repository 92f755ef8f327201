"""``splitzoo export triton``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ...console import Console, Force, Json, Trust


class TritonBackend(StrEnum):
    """Values of ``--backend``."""

    ENSEMBLE = "ensemble"
    PYTHON = "python"


def triton(
    bundles: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]BUNDLE...", help="Bundles that hold the edge half."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model repository to write.")],
    backend: Annotated[
        TritonBackend,
        typer.Option(
            help="Ensemble with the graph in a backend of its own, or all in the Python backend."
        ),
    ] = TritonBackend.ENSEMBLE,
    instances: Annotated[int, typer.Option(min=1, max=1024, help="Instances of the graph.")] = 1,
    decoders: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Instances of an ensemble's steps in Python."),
    ] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="GPUs for an ensemble's graph.")] = False,
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            max=1024,
            help="Threads of each engine; 0: it chooses, or one where there are several instances.",
        ),
    ] = 0,
    max_batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Streams, at most, that run at once.")
    ] = 8,
    max_delay: Annotated[
        float,
        typer.Option(
            min=0, max=60_000, metavar="MS", help="Longest wait of a stream for others, ms."
        ),
    ] = 0,
    max_queue: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Requests, at most, that wait for a model.")
    ] = 256,
    trust: Trust = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model repository of Triton Inference Server."""
    from splitrun.arguments import named_bundle

    from ..triton import TritonOptions, export_triton

    console = Console(json)
    options = TritonOptions(
        backend=backend.value,
        instances=instances,
        decoders=decoders,
        gpu=gpu,
        max_batch=max_batch,
        max_delay_ms=max_delay,
        max_queue=max_queue,
        threads=threads,
        trust=trust,
    )
    models = export_triton(map(named_bundle, bundles), output, options, force=force)

    def show() -> None:
        rows = [
            (model.name, model.backend, model.batch or 1, "clients" if model.asked else "a step")
            for model in models
        ]
        console.table(str(output), ("model", "backend", "batch", "for"), rows)

    console.data(models, show)
    requirements = next(output.glob("*/1/bundle/requirements.txt"))
    console.hint(
        f"Next, where Triton's Python has: pip install -r {requirements}\n"
        f"tritonserver --model-repository {output}"
    )
