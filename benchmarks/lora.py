"""Images over LoRa that loses frames: what is acknowledged is bit-exact.

    python benchmarks/lora.py --bundle BUNDLE --images DIR

Each stream goes through the code of ``splitrun send`` and ``splitrun receive`` in frames of
LoRaWAN's data rate 5 (222 bytes, 5,470 bit/s). The line is simulated in made time, so that what
else the machine does changes nothing: at each loss, so many frames are lost either way, one in a
hundred has a bit turned, and one in a hundred comes twice. An image is sent at most five times.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from splitrun.bundle import open_bundle
from splitrun.files import new_file
from splitrun.halves import Device
from splitrun.image_files import list_images
from splitrun.sending.carriers import LinkDownError
from splitrun.sending.frame_carrier import FrameCarrier
from splitrun.sending.frames import Assembler
from splitrun.sending.items import Item
from splitrun.sending.links import Pace

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from lossy_line import LossyLine

RESULTS = Path(__file__).parent / "results"
LOSSES = (0.0, 0.1, 0.3)
ATTEMPTS = 5


@dataclass
class Lossy:
    """What became of the images at one loss.

    Attributes:
        loss: Share of frames that are lost.
        images: Images sent.
        acknowledged: Images that the receiver acknowledged.
        exact: Acknowledged images that it has bit for bit, once, in order.
        frames: Frames sent by the device, for each that the streams fill.
        air_s: Median time on the air of an image, retries and waits included, s.
    """

    loss: float
    images: int
    acknowledged: int
    exact: int
    frames: float
    air_s: float


def send(streams: list[bytes], loss: float, seed: int) -> Lossy:
    received: list[bytes] = []

    def keep(_sender: object, _tag: bytes, stream: bytes) -> bool:
        received.append(stream)
        return True

    line = LossyLine(Assembler(keep), loss=loss, damage=0.01, double=0.01, seed=seed)
    carrier = FrameCarrier(line, pace=Pace(None), clock=line.clock)
    acknowledged, seconds, parts = [], [], 0
    for number, stream in enumerate(streams):
        item = Item(f"{number:024x}", "photo.jpg", stream, 0.0, f"board/{number}")
        began = line.now
        for _ in range(ATTEMPTS):
            try:
                parts += carrier.deliver(item).answer["parts"]
            except LinkDownError:
                continue
            acknowledged.append(stream)
            seconds.append(line.now - began)
            break
    # Some that were not acknowledged may have come whole.
    rest = iter(received)
    exact = sum(any(found == stream for found in rest) for stream in acknowledged)
    return Lossy(
        loss,
        len(streams),
        len(acknowledged),
        exact,
        line.frames / max(parts, 1),
        statistics.median(seconds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="images, some again where few")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    device, photos = Device(bundle), list_images(arguments.images)[: arguments.count]
    made = [bytes(device.encode_image(photo)) for photo in photos]
    streams = [made[number % len(made)] for number in range(arguments.count)]
    found = [send(streams, loss, seed=int(100 * loss)) for loss in LOSSES]
    mean = statistics.fmean(map(len, streams))
    lines = [
        "# LoRa that loses frames",
        "",
        f"`python benchmarks/lora.py --bundle BUNDLE --images DIR`, whose head says what it does: "
        f"{arguments.count} streams of {len(photos)} photographs, {bundle.name}, "
        f"{mean:,.0f} bytes each, at LoRaWAN's data rate 5 in made time.",
        "",
        "| frames lost | acknowledged | of these bit-exact | frames sent : frames filled | "
        "median s of an image |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.loss:.0%} | {one.acknowledged} of {one.images} | {one.exact} | {one.frames:.2f} | "
        f"{one.air_s:.1f} |"
        for one in found
    ]
    text = "\n".join(lines) + "\n"
    document = {"model": bundle.name, "bytes": mean, "losses": [asdict(one) for one in found]}
    for name, content in (("lora.json", json.dumps(document, indent=1) + "\n"), ("lora.md", text)):
        with new_file(arguments.output / name, force=True) as temporary:
            temporary.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
