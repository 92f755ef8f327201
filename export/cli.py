"""``splitzoo export``: split, check, run, and write what serves."""

import typer

from .commands.running import run, verify
from .commands.splitting import split
from .commands.targets import prepare, targets
from .commands.triton import triton

app = typer.Typer(no_args_is_help=True, help="Split models into bundles; check and run them.")
for command in (split, targets, prepare, verify, run, triton):
    app.command()(command)
