"""``splitzoo demo-link``: a server and a device as two processes, and a slow link between them."""

import json as json_text
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from splitrun.errors import SplitzooError
from splitrun.sending.links import LINK_NAMES

from .console import Console, Force, Json
from .demo import PHOTOGRAPHS, smallest_jpegs

_READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Sent:
    """A photograph that was sent.

    Attributes:
        image: Its path.
        stream_bytes: Bytes of its stream.
        sent_bytes: Bytes that were sent, HTTP's own among them.
        air_ms: Time that sending them took.
        answer: The class that the server named first.
        probability: Its probability.
        jpeg_bytes: Bytes of the smallest JPEG with which the whole network says the same; None
            where there is none.
        jpeg_air_ms: Time that these would take on the link, HTTP's own bytes included.
    """

    image: str
    stream_bytes: int
    sent_bytes: int
    air_ms: float
    answer: str
    probability: float
    jpeg_bytes: int | None
    jpeg_air_ms: float | None


def demo_link(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write the two halves into.")
    ] = Path("demo-out/link"),
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of photographs.", show_default="the package's"),
    ] = None,
    link: Annotated[
        str,
        typer.Option(help=f"Link to be as slow as: {LINK_NAMES}."),
    ] = "37.5kbps",
    force: Force = False,
    json: Json = False,
) -> None:
    """Send photographs from a device to a server over a slow link, beside JPEG."""
    from splitrun.bundle import open_bundle
    from splitrun.bundle_layout import HALVES
    from splitrun.files import check_free, new_folder
    from splitrun.image_files import list_images
    from splitrun.parting import write_half
    from splitrun.sending.links import read_link

    from .zoo.resolve import DEFAULT_MODEL, ModelSource

    console = Console(json)
    slow = read_link(link)
    photographs = list_images(images) if images else list(PHOTOGRAPHS)
    check_free(output, force=force)
    with console.progress() as progress:
        progress.step(f"exporting {DEFAULT_MODEL}")
        model = ModelSource.of().load()

        from . import export

        with new_folder(output, force=force) as folder:
            export.split(model, folder / "both")
            bundle = open_bundle(folder / "both")
            for half in HALVES:
                (folder / half).mkdir()
                write_half(bundle, half, folder / half)
            shutil.rmtree(folder / "both")
        began = time.perf_counter()
        progress.step("starting the server")
        with _server(output / "edge") as url:
            progress.step(f"sending over {link}")
            said = _send(output / "device", url, link, photographs, output / "spool")
        progress.step("looking for the smallest JPEG with the same answer")
        tops = [line["answer"]["top"][0] for line in said]
        jpegs = smallest_jpegs(
            model, [Path(line["image"]) for line in said], [best["index"] for best in tops]
        )
        sent = []
        for line, best, jpeg in zip(said, tops, jpegs, strict=True):
            overhead = line["sent_bytes"] - line["stream_bytes"]
            sent.append(
                Sent(
                    image=line["image"],
                    stream_bytes=line["stream_bytes"],
                    sent_bytes=line["sent_bytes"],
                    air_ms=line["air_ms"],
                    answer=best["label"],
                    probability=best["probability"],
                    jpeg_bytes=jpeg[0] if jpeg else None,
                    jpeg_air_ms=1e3 * slow.seconds_on_air(jpeg[0] + overhead) if jpeg else None,
                )
            )
        took = time.perf_counter() - began

    def show() -> None:
        console.table(
            f"a device and a server, two processes, over {link}",
            (
                *("photo", "stream bytes>", "sent>", "ms on the air>", "answer"),
                *("JPEG bytes>", "ms on the air>"),
            ),
            [
                (
                    Path(photo.image).name,
                    f"{photo.stream_bytes:,}",
                    f"{photo.sent_bytes:,}",
                    f"{photo.air_ms:,.0f}",
                    f"{photo.answer} ({photo.probability:.1%})",
                    f"{photo.jpeg_bytes:,}" if photo.jpeg_bytes else "—",
                    f"{photo.jpeg_air_ms:,.0f}" if photo.jpeg_air_ms else "—",
                )
                for photo in sent
            ],
        )

    console.data({"link": link, "sent": sent, "seconds": took}, show)
    console.hint(
        "JPEG: the smallest with which the whole network on the server says the same. "
        f"Without the export: {took:.1f} s. The halves are in {output}. Next: "
        "splitzoo profile link BUNDLE --images DIR --link 37.5kbps"
    )


@contextmanager
def _server(bundle: Path) -> Iterator[str]:
    """Serve a bundle in a process of its own, and give its address when it is ready."""
    process = _splitrun("serve", str(bundle), "--port", "0", "--log-level", "error")
    assert process.stdout
    deadline = threading.Timer(_READY_WITHIN_S, process.kill)
    deadline.start()
    try:
        said = next((line for line in process.stdout if line.startswith("Serving on ")), "")
        if not said:
            raise _failure(process)
        deadline.cancel()
        yield said.split()[-1]
    finally:
        deadline.cancel()
        process.terminate()
        process.communicate()


def _send(
    bundle: Path, url: str, link: str, images: list[Path], spool: Path
) -> list[dict[str, Any]]:
    words = ["--bundle", bundle, "send", "--to", url, "--link", link, "--spool", spool, *images]
    process = _splitrun(*map(str, words))
    out, _ = process.communicate()
    lines = [json_text.loads(line) for line in out.splitlines()]
    if process.returncode:
        raise _failure(process)
    return lines


def _splitrun(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "splitrun", *words], stdout=subprocess.PIPE, text=True
    )


def _failure(process: "subprocess.Popen[str]") -> SplitzooError:
    process.kill()
    return SplitzooError("A process of the demonstration ended; what it said stands above.")
