"""The time from a photograph to its answer: `splitzoo profile link` over several links.

    python -m benchmarks.link --photos val

Each eighth photograph below the folder is sent, over LoRa each 24th, one when the last is answered:
by the default model; by JPEG, WebP and AVIF, at the least quality with which the whole
network says of as many photographs what it says of the original; and as the answer of the whole
network, its teacher, on the device. Both processes run on this machine, with one thread each, and
no round trip is added.

    python -m benchmarks.link

writes the page again from what was measured.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from splitrun.files import new_file
from splitrun.sending.links import read_link
from splitzoo import export, zoo
from splitzoo.profile.link.plot import draw_link
from splitzoo.profile.link.run import measure_link
from splitzoo.zoo.datasets import read_unlabelled

RESULTS = Path(__file__).parent / "results"
LINKS = {"wifi": 8, "lte-m": 8, "ble": 8, "37.5kbps": 8, "lora": 24}
"""Links, and of how many photographs one is sent over each."""
DRAWN = "37.5kbps"
"""The link whose figure is kept too."""
FIGURE = RESULTS / "link" / "figure"


def file_of(link: str) -> Path:
    return RESULTS / f"link.{link}.json"


def measure(photos: Path, only: Sequence[str]) -> None:
    found = [sample.path for sample in read_unlabelled(photos).samples]
    command = f"python -m benchmarks.link --photos {photos.name}"
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundle")
        export.split(zoo.load(zoo.DEFAULT_MODEL), bundle, target="cpu")
        for name in only or LINKS:
            images, link = found[:: LINKS[name]], read_link(name)
            report = measure_link(bundle, images, link, threads=1, command=command)
            report.save(file_of(name), force=True)
            if name == DRAWN:
                FIGURE.mkdir(parents=True, exist_ok=True)
                draw_link(report, FIGURE)
            print(name, flush=True)


def page() -> str:
    reports = {name: json.loads(file_of(name).read_text()) for name in LINKS}
    first = next(iter(reports.values()))
    environment = first["environment"]
    lines = [
        "# From a photograph to its answer",
        "",
        f"`{first['command']}`: {first['model']}, and {first['whole']} as the whole network; both "
        f"processes on {environment['cpu']}, one thread each, no round trip added; {first['date']}."
        " Medians, ms; p90 and p99 are of the total.",
        "",
        "Same: of how many of the photographs the whole network's answer was given. Each image "
        "codec has the least quality with which it is as often the same as with the split model.",
        "",
        "| link | photographs | way | same | bytes | on the device | on the air | on the edge | "
        "total | p90 | p99 |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, report in reports.items():
        for way in report["ways"]:
            ms = {stage: latency["p50_ms"] for stage, latency in way["stages"].items()}
            device = ms["preprocess"] + ms["device graph"] + ms["coding"]
            edge = ms["queue"] + ms["decode"] + ms["edge graph"]
            total = way["stages"]["total"]
            quality = "" if way["quality"] is None else f", quality {way['quality']}"
            lines.append(
                f"| {name} | {report['images']} | {way['name']}{quality} | {way['score']:.0%} | "
                f"{way['bytes_mean']:,.0f} | {device:,.1f} | {ms['air']:,.0f} | {edge:,.1f} | "
                f"{total['p50_ms']:,.0f} | {total['p90_ms']:,.0f} | {total['p99_ms']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", action="append", choices=list(LINKS), help="a link to measure")
    arguments = parser.parse_args()
    if arguments.photos:
        measure(arguments.photos, arguments.only)
    text = page()
    with new_file(RESULTS / "link.md", force=True) as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
