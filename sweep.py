"""``splitzoo zoo sweep``: train one recipe at several β, score each, and draw the trade-off."""

import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console, Json
from .progress import Progress
from .zoo.train.cli import (
    Epochs,
    MixedPrecision,
    RecipeArgument,
    Start,
    Teacher,
    TrainingSeed,
    Workers,
)

if TYPE_CHECKING:
    from .zoo.train.recipe import Recipe

_BETA = re.compile(r"(?<=-beta)[0-9.]+(e-?[0-9]+)?")


def sweep(
    recipe: RecipeArgument,
    beta: Annotated[
        str, typer.Option(metavar="β,β,…", help="Weights of the rate, one model for each.")
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data set to train on.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Folder for runs, reports and figure; what is finished in it is kept.",
        ),
    ],
    score: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the data set to score on.", show_default="that of --data"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model to vary, if the recipe has several.")] = "",
    start: Start = "",
    teacher: Teacher = "",
    epochs: Epochs = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=256, help="Number of models that are trained at once.")
    ] = 1,
    seed: TrainingSeed = 0,
    workers: Workers = None,
    mixed_precision: MixedPrecision = "no",
    json: Json = False,
) -> None:
    """Train one recipe at several β, score each model, and draw rate against accuracy.

    A sweep that was interrupted continues when it is started again with the same arguments.
    """
    from splitrun.errors import TrainingError
    from splitrun.files import new_file

    from . import profile
    from .zoo.train.plan import MODEL_NAME
    from .zoo.train.recipe_files import find_recipe

    console = Console(json)
    name, found, _ = find_recipe(recipe, model)
    varied = with_betas(found, model or found.names()[0], beta.split(","))
    _check_score(varied, score, data)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.yaml"
    with new_file(path, force=True) as temporary:
        temporary.write_text(varied.to_yaml(), encoding="utf-8")
    common = ["--data", str(data), "--seed", str(seed), "--mixed-precision", mixed_precision]
    common += [word for count in epochs or () for word in ("--epochs", str(count))]
    common += ["--start", start] if start else []
    common += ["--teacher", teacher] if teacher else []
    common += [] if workers is None else ["--workers", str(workers)]
    runs = {one: output / "runs" / one for one in varied.names()}
    with console.progress() as progress:
        commands = {
            one: ["zoo", "train", str(path), "--model", one, *common, "-o", str(run)]
            for one, run in runs.items()
            if not (run / MODEL_NAME).is_dir()
        }
        failed = _run_all(commands, runs, parallel, progress)
        if failed:
            raise TrainingError(
                f"{len(failed)} of {len(runs)} models were not trained: {', '.join(failed)}.\n"
                f"{_last_error(log_of(runs[failed[0]]))}",
                next_step=f"All of it: {log_of(runs[failed[0]])}. Then start the sweep again.",
            )
        reports = _score_all(runs, score or data, output / "results", progress)
        tradeoff = profile.tradeoff(reports, output / "figure", force=True)
    console.data(
        tradeoff,
        lambda: console.table(
            "",
            ("model", "bytes>", f"{tradeoff.metric}>"),
            [(one.model, f"{one.data_bytes:,.0f}", f"{one.score:.2%}") for one in tradeoff.points],
        ),
    )
    console.hint(f"Drawn in {output / 'figure'}. Models: {output / 'runs'}/NAME/{MODEL_NAME}")


def with_betas(recipe: "Recipe", name: str, betas: Sequence[str]) -> "Recipe":
    """Return a recipe that trains one of its models at each β instead.

    Raises:
        SpecError: The model has no β, or one is no number.
        RecipeError: A β stands there twice.
    """
    from splitrun.errors import RecipeError, SpecError

    from .zoo.name_parts import check_beta
    from .zoo.train.recipe import Variant

    spec = recipe.spec(name)
    if spec.beta is None or not _BETA.search(name):
        raise SpecError(f"{name} has no β to vary.", next_step="Take a model named …-betaβ.")
    known = recipe.models[recipe.names().index(name)]
    models = []
    for text in betas:
        try:
            word = check_beta(text.strip())
        except ValueError as error:
            raise SpecError(f"{error}.", next_step="Give --beta 0.5,1,2") from error
        other = _BETA.sub(word, name)
        varied = isinstance(known, Variant)
        models.append(
            known.model_copy(update={"name": other, "beta": float(word)}) if varied else other
        )
    names = [one if isinstance(one, str) else one.name for one in models]
    if len(set(names)) < len(names):
        raise RecipeError("A β stands in --beta twice.")
    return recipe.model_copy(update={"models": tuple(models)})


def _check_score(recipe: "Recipe", score: Path | None, data: Path) -> None:
    """Raise ``DatasetError`` where nothing can be scored: before hours of training, not after."""
    from splitrun.errors import DatasetError

    from .zoo.datasets import labels_of, read_dataset

    if score is None and recipe.dataset == "unlabelled":
        raise DatasetError(
            "Images without classes score nothing.",
            next_step="Name labelled ones, a folder per class: --score DIR",
        )
    spec = recipe.spec(recipe.names()[0])
    known = labels_of(spec) if spec.dataset else ()
    read_dataset(spec.task, score or data, "val", known)


def log_of(run: Path) -> Path:
    """Return the file that what a run says goes to."""
    return Path(f"{run}.log")


def _last_error(log: Path) -> str:
    """Return the last error that a log tells, or else its last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[begins[-1] if begins else -3 :]).removeprefix("error: ")


def _run_all(
    commands: dict[str, list[str]], runs: dict[str, Path], parallel: int, progress: Progress
) -> list[str]:
    """Run the commands, some at a time, each with a log beside its run; return those that failed.

    Each continues a run that is there. Where this is stopped, all are, and each keeps its run.
    """
    from splitrun.signals import keeping

    from .zoo.train.checkpoint import NAME as CHECKPOINT_NAME

    started: list[subprocess.Popen] = []
    stopped = threading.Event()

    def run(name: str) -> int:
        folder, words = runs[name], commands[name]
        folder.parent.mkdir(parents=True, exist_ok=True)
        words = words + ["--resume"] * (folder / CHECKPOINT_NAME).is_file()
        with log_of(folder).open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(['splitzoo', *words])}\n")
            log.flush()
            words = [sys.executable, "-m", "splitzoo", *words]
            process = subprocess.Popen(words, stdout=log, stderr=log)
            started.append(process)
            if stopped.is_set():
                process.terminate()
            return process.wait()

    failed = []
    with (
        keeping("Runs are kept: the same command goes on with them."),
        ThreadPoolExecutor(parallel) as pool,
    ):
        waiting = {pool.submit(run, name): name for name in commands}
        try:
            for done in progress.track(as_completed(waiting), "models", total=len(waiting)):
                if done.result():
                    failed.append(waiting[done])
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.terminate()
            raise
    return [name for name in commands if name in failed]


def _score_all(runs: dict[str, Path], data: Path, folder: Path, progress: Progress) -> list[Path]:
    """Evaluate each model once, and return the reports."""
    from . import profile
    from .zoo.train.plan import MODEL_NAME

    folder.mkdir(exist_ok=True)
    reports = []
    for name, run in runs.items():
        path = folder / f"{name}.json"
        reports.append(path)
        if path.is_file():
            continue
        progress.step(f"scoring {name}")
        model = run / MODEL_NAME
        words = ["splitzoo", "profile", "accuracy", str(model), "--data", data.name]
        command = shlex.join([*words, "-o", path.name])
        profile.accuracy(model, data, command=command, progress=progress).save(path)
    return reports
