"""``python -m splitrun`` and ``splitrun``: the commands of a board and of an edge server."""

import argparse
import dataclasses
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .arguments import bundle_folder, image_size, number, whole_number
from .bundle_layout import HALVES, MANIFEST_NAME
from .coder_commands import add_coder_commands
from .errors import SomeFilesError, SplitzooError, error_document
from .file_commands import decode, encode
from .memory_limit import can_be_limited, memory_limit
from .sending.command import add_receive, add_send
from .serving.command import add_serve
from .sizes import format_size
from .text import json_text, visible

if TYPE_CHECKING:
    from .bundle import Bundle

_DESCRIPTION = "Encode on the device, decode on the edge, test and measure both."
_MOST = 1_000_000


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # The encoding of standard output may lack characters of labels.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    arguments = _parser(_default_bundle()).parse_args(argv)
    try:
        arguments.start(arguments)
        sys.stdout.flush()
        return 0
    except SplitzooError as caught:
        error = caught
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as refusal:
        error = SplitzooError(f"The system refused: {refusal.strerror or refusal}.")
    except MemoryError:
        error = SplitzooError("There is too little memory here.")
    print(f"error: {visible(str(error))}", file=sys.stderr)
    # Of several files, what came of each was printed.
    if arguments.json and not isinstance(error, SomeFilesError):
        print(json_text(error.document()))
    return error.exit_code


def _run_on_bundle(arguments: argparse.Namespace) -> None:
    """Start a command that takes a bundle: open it, and limit what it can do."""
    from .bundle import open_bundle
    from .halves import check_code

    bundle = open_bundle(bundle_folder(arguments), trust=arguments.trust)
    # Who runs what lies in the bundle trusts it.
    is_own = bundle.folder.resolve() == Path(__file__).resolve().parents[1]
    if not (arguments.trust or is_own):
        check_code(bundle)
    limited = not arguments.trust and can_be_limited(bundle)
    with memory_limit(arguments.memory_limit if limited else None):
        arguments.run(bundle, arguments)


class _Parser(argparse.ArgumentParser):
    """Prints what is wrong with the usage as JSON too, where that is asked for."""

    def error(self, message: str) -> NoReturn:
        message = visible(message)
        if "--json" in sys.argv:
            print(json_text(error_document("UsageError", message, "", 2)))
        super().error(message)


def _default_bundle() -> Path | None:
    """Return the bundle that this package lies in, or else the current folder if it is one."""
    folders = (Path(__file__).parents[1], Path())
    return next((folder for folder in folders if (folder / MANIFEST_NAME).is_file()), None)


def _parser(bundle: Path | None) -> _Parser:
    parser = _Parser(prog="python -m splitrun", description=_DESCRIPTION)
    parser.set_defaults(start=_run_on_bundle)
    parser.add_argument(
        "--bundle",
        type=Path,
        default=bundle,
        help="folder of the bundle (default: the one that holds this runtime, or this folder)",
    )
    common = _Parser(add_help=False)
    # Many write it after the command.
    common.add_argument(
        "--bundle", type=Path, default=argparse.SUPPRESS, help="folder of the bundle"
    )
    common.add_argument(
        "--threads",
        type=whole_number(0, _MOST),
        default=0,
        help="threads for the engine; 0: it chooses",
    )
    common.add_argument(
        "--stand-in",
        action="store_true",
        help="let ONNX Runtime run graphs whose engine is not here",
    )
    common.add_argument(
        "--trust",
        action="store_true",
        help="run any operators, and formats that can hold code, without a limit of memory",
    )
    common.add_argument(
        "--memory-limit",
        type=whole_number(1, _MOST),
        default=8,
        metavar="GIB",
        help="most memory, in GiB, that a graph may take (default: 8)",
    )
    common.add_argument("--json", action="store_true", help="print JSON, errors included")
    rated = _Parser(add_help=False, parents=[common])
    rated.add_argument(
        "--beta",
        type=number(),
        help="β of the rate, where the model's varies: a larger one sends less; see info",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encoding = commands.add_parser("encode", parents=[rated], help="turn images into streams")
    encoding.add_argument(
        "images", nargs="+", metavar="IMAGE", help="file, folder of images, or - for standard input"
    )
    encoding.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file, folder for several images, or - for standard output; default: IMAGE.sz",
    )
    encoding.add_argument(
        "--numbered", action="store_true", help="name the streams 0.sz, 1.sz, … in the folder -o"
    )
    encoding.add_argument(
        "--force", action="store_true", help="replace streams that exist; without it, refuse"
    )
    encoding.set_defaults(run=encode)

    decoding = commands.add_parser("decode", parents=[common], help="turn streams into predictions")
    decoding.add_argument(
        "streams", nargs="+", metavar="STREAM", help="file, folder of .sz, or - for standard input"
    )
    decoding.add_argument(
        "--top",
        type=whole_number(1, _MOST),
        default=5,
        help="number of classes or objects to print",
    )
    decoding.add_argument(
        "--image-size",
        type=image_size(_MOST),
        action="append",
        metavar="WIDTHxHEIGHT",
        help="size of a stream's image, for boxes in its pixels; once for each stream",
    )
    decoding.add_argument("--tail", help="tail to run, where the edge has several")
    decoding.set_defaults(run=decode)

    add_send(commands, rated)
    add_receive(commands)

    selftest = commands.add_parser(
        "selftest", parents=[common], help="compare this machine with the run recorded at export"
    )
    selftest.set_defaults(run=_selftest)

    bench = commands.add_parser("bench", parents=[rated], help="measure latency and memory")
    bench.add_argument(
        "--half", choices=(*HALVES, "both"), help="half to measure (default: what is here)"
    )
    bench.add_argument("--tail", help="tail to measure, where the edge has several")
    bench.add_argument("--image", help="image to measure on, preprocessing included")
    bench.add_argument(
        "--warmup", type=whole_number(0, _MOST), default=10, help="runs that are not counted"
    )
    bench.add_argument(
        "--iterations", type=whole_number(1, _MOST), default=100, help="counted runs"
    )
    bench.set_defaults(run=_bench)

    add_serve(commands, common)

    # Both take the bundle after their name too, which reads best.
    named = _Parser(add_help=False)
    named.set_defaults(trust=True)  # nothing of the bundle is run
    named.add_argument("named", nargs="?", type=Path, metavar="BUNDLE", help="folder of the bundle")
    named.add_argument("--json", action="store_true", help="print JSON")
    info = commands.add_parser("info", parents=[named], help="say which halves are here")
    info.set_defaults(run=_info)

    part = commands.add_parser(
        "part", parents=[named], help="write one half as a bundle of its own"
    )
    part.add_argument("--half", choices=HALVES, required=True, help="half to write")
    part.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    part.add_argument(
        "--force", action="store_true", help="replace the bundle in that folder; without it, refuse"
    )
    part.set_defaults(run=_part)

    add_coder_commands(commands, named)
    return parser


def _selftest(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    from .selftest import run_selftest

    bundle.check_files()
    result = run_selftest(bundle, arguments.threads, stand_in=arguments.stand_in)
    if arguments.json:
        print(json_text(dataclasses.asdict(result) | {"passed": True}))
        return
    rows = [("files", f"{len(bundle.manifest.files)} as the manifest says"), *result.rows()]
    rows += [(f"{half} half", "not here, not tested") for half in bundle.manifest.absent]
    for name, value in rows:
        print(f"{name:12} {value}")
    print("self-test passed")


def _bench(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    from .bench import bench_half

    halves = {None: bundle.manifest.halves, "both": HALVES}.get(arguments.half, (arguments.half,))
    for half in halves:
        bundle.check_here(half)
    if arguments.tail is not None:
        bundle.tail(arguments.tail)
    results = [
        bench_half(
            bundle,
            half,
            image=arguments.image if half == "device" else None,
            beta=arguments.beta if half == "device" else None,
            tail=arguments.tail,
            threads=arguments.threads,
            stand_in=arguments.stand_in,
            warmup=arguments.warmup,
            iterations=arguments.iterations,
        )
        for half in halves
    ]
    if arguments.json:
        print(json_text([dataclasses.asdict(result) for result in results]))
        return
    for result in results:
        print(f"{result.half}, {result.engine}, {result.environment['cpu']}")
        print(f"  {'ms':16} {'p50':>8} {'p90':>8} {'p99':>8}")
        for name, step in result.latency.items():
            print(f"  {name:16} {step.p50_ms:8.3f} {step.p90_ms:8.3f} {step.p99_ms:8.3f}")
        print(f"  stream {result.stream_bytes:,} bytes, {result.iterations} runs")
    what = "of this process, which ran both halves" if len(results) > 1 else "of this process"
    print(f"peak memory {format_size(results[-1].peak_memory_bytes)}, {what}")


def _info(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    manifest = bundle.manifest
    sizes = {half: bundle.size_bytes(half) for half in manifest.halves}
    tails = {name: manifest.task_of(tail) for name, tail in manifest.edge.tails.items()}
    coder = bundle.codec().coder
    if arguments.json:
        facts = {"model": bundle.name, "stream_id": manifest.coding.stream_id, "tails": tails}
        made = {
            "target": manifest.target,
            "precision": manifest.precision,
            "edge_precision": manifest.edge.precision,
        }
        rate = {"betas": coder.betas, "beta": coder.beta}
        print(
            json_text(facts | made | {"halves": list(manifest.halves), "size_bytes": sizes} | rate)
        )
        return
    print(f"model     {bundle.name}, {manifest.provenance.weights} weights")
    print(f"id        {manifest.coding.stream_id}, of both halves and of their streams")
    print(f"target    {manifest.target}, {manifest.precisions}")
    for half in HALVES:
        here = f"{format_size(sizes[half])} to run" if half in sizes else "not here"
        print(f"{half:9} {here}")
    print(f"tails     {', '.join(tails)}")
    if coder.betas:
        betas = ", ".join(f"{beta:g}" for beta in coder.betas)
        print(f"β         {betas}; {coder.beta:g} where none is chosen")


def _part(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    from .bundle import new_bundle, open_bundle
    from .parting import write_half

    with new_bundle(arguments.output, force=arguments.force) as temporary:
        write_half(bundle, arguments.half, temporary)
    _info(open_bundle(arguments.output), arguments)
