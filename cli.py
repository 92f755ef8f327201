"""The command line: ``splitzoo zoo | export | profile | cards | demo``."""

import io
import os
import sys
from typing import Annotated, Any

import typer

from splitrun.errors import SplitzooError, error_document
from splitrun.text import visible

from . import __version__
from .cards.cli import app as cards_app
from .console import Console
from .demo import demo
from .demo_link import demo_link
from .export.cli import app as export_app
from .profile.cli import app as profile_app
from .publish import push
from .sweep import sweep
from .zoo.cli import app as zoo_app

# The error of click that all of wrong usage are, which typer carries under a private name.
_UsageError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="splitzoo",
    help="Split a network between a weak device and a strong edge: build or load a model, cut it "
    "into two graphs with an entropy coder in between, measure what the device pays, and write it "
    "on a card.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# A push also writes a card, so it cannot live in the zoo, below the cards.
zoo_app.command()(push)
# A sweep is scored and drawn, by the profile above the zoo.
zoo_app.command()(sweep)
app.add_typer(zoo_app, name="zoo")
app.add_typer(export_app, name="export")
app.add_typer(profile_app, name="profile")
app.add_typer(cards_app, name="cards")
app.command()(demo)
app.command()(demo_link)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"splitzoo {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run(commands: typer.Typer = app) -> int:
    """Run the command that the process was started with, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not have β
    console = Console(json="--json" in sys.argv)
    try:
        code = commands(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # after a shell's completion
        return stop.code if isinstance(stop.code, int) else 0
    except SplitzooError as error:
        console.error(error)
        return error.exit_code
    except _UsageError as error:
        return _show_usage(error, console)
    except BrokenPipeError:
        # The reader went away; without this, Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        console.error(
            SplitzooError(
                f"The operating system refused: {error.strerror or error}.",
                next_step="Check that there is space for the output and in the temporary folder.",
            )
        )
        return 1


def _show_usage(error: Any, console: Console) -> int:
    from typer.rich_utils import rich_format_error

    error.message = visible(error.message)
    if console.json:
        console.document(error_document("UsageError", error.format_message(), "", error.exit_code))
    rich_format_error(error)
    return error.exit_code
