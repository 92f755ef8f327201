"""What int8 costs trained models: predictions and bytes, through real bundles.

    python benchmarks/int8_accuracy.py --flowers DIR [-o benchmarks/results]

``DIR`` holds ``train/`` and ``val/``. The models that the package carries are calibrated to
images of ``train/`` and evaluated on ``val/``, each image sent from the device half to the
edge half of a bundle; their entropy tables stay as they are. A bar that is missed is reported; the
exit code stays 0.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from splitrun.errors import SplitzooError
from splitrun.files import new_file
from splitrun.machine import machine, short_name
from splitzoo import export, zoo
from splitzoo.profile.accuracy_report import AccuracyReport, ImageResult
from splitzoo.profile.evaluate import evaluate
from splitzoo.profile.subjects import BundleSubject
from splitzoo.zoo.datasets import labels_of, read_dataset

MODELS = tuple(f"flowers-splittable_regnetx_002-fp-beta{beta}" for beta in (1, 3, 8))
TARGETS = ("cpu", "openvino")
MOST_POINTS = 0.5  # of top-1 that int8 may lose
THREADS = 2
PACKAGES = ("splitzoo", "torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Loss:
    """One model in int8 on one target, beside the same model's fp32 bundle for ONNX Runtime.

    Attributes:
        model: Its name.
        target: Target of the int8 bundle.
        engine: Engine and its version.
        calibrated: Number of images that the ranges come from.
        images: Number of images evaluated.
        correct_fp32: Number of these that fp32 names correctly.
        correct: Number of these that int8 names correctly.
        other_predictions: Images whose best class is another than fp32's, correct or wrong.
        points: Points of top-1 lost; below 0 where int8 is better.
        payload_bytes_fp32: Mean payload in fp32.
        payload_bytes: Mean payload in int8.
        flips: Share of the symbols that differ, on images held out of ``train/``.
        changed: Number of differing symbols over the number of nonzero ones.
        kept_fp32: Parts of the graph left in fp32.
        met: Whether the bar is met.
    """

    model: str
    target: str
    engine: str
    calibrated: int
    images: int
    correct_fp32: int
    correct: int
    other_predictions: int
    points: float
    payload_bytes_fp32: float
    payload_bytes: float
    flips: float
    changed: float
    kept_fp32: list[str]
    met: bool

    @property
    def inflation(self) -> float:
        """By how much the payload grows, as a share."""
        return self.payload_bytes / self.payload_bytes_fp32 - 1


Evaluation = tuple[AccuracyReport, list[ImageResult]]


def measure(name: str, data: Path, work: Path) -> list[Loss]:
    """Export a model for every target, and evaluate all bundles."""
    model = zoo.load(name)
    folder = work / "fp32"
    export.split(model, folder)
    progress(f"{name}, fp32")
    full = run(folder, data)
    found = []
    for target in TARGETS:
        folder = work / target
        progress(f"{name}, int8 for {target}")
        manifest = export.split(
            model,
            folder,
            target=target,
            precision="int8",
            calibration=data / "train",
            keep_tables=True,
            accept=True,
        )
        assert manifest.precision_report is not None  # of every precision below fp32
        report, images = run(folder, data)
        before, after = (
            [one.result.correct for one in both]  # pyright: ignore
            for both in (full[1], images)
        )
        predictions = zip(full[1], images, strict=True)
        others = sum(a.result.prediction[0] != b.result.prediction[0] for a, b in predictions)  # pyright: ignore
        points = 100 * (sum(before) - sum(after)) / len(after)
        found.append(
            Loss(
                model=name,
                target=target,
                engine=report.runtime,
                calibrated=manifest.precision_report.calibrated,
                images=len(after),
                correct_fp32=sum(before),
                correct=sum(after),
                other_predictions=others,
                points=points,
                payload_bytes_fp32=full[0].payload_bytes.mean,
                payload_bytes=report.payload_bytes.mean,
                flips=manifest.precision_report.flips,
                changed=manifest.precision_report.changed,
                kept_fp32=manifest.precision_report.kept_fp32,
                met=points <= MOST_POINTS,
            )
        )
    return found


def run(folder: Path, data: Path) -> Evaluation:
    """Evaluate a bundle on ``val/``."""
    subject = BundleSubject(folder, THREADS)
    dataset = read_dataset(subject.spec.task, data, "val", labels_of(subject.spec))
    return evaluate(subject, dataset, data, threads=THREADS)


def markdown(losses: list[Loss], facts: dict[str, str], versions: dict[str, str]) -> str:
    """Return the page."""
    head = ["model", "target", "top-1 fp32", "int8", "points lost", "bar", "met"]
    head += [
        "other predictions",
        "payload fp32",
        "int8",
        "growth",
        "symbols that differ",
        "of those not 0",
    ]
    rows = [head]
    for one in losses:
        rows.append(
            [
                one.model,
                one.target,
                f"{one.correct_fp32 / one.images:.2%}",
                f"{one.correct / one.images:.2%}",
                f"{one.points:.2f}",
                f"≤ {MOST_POINTS}",
                "yes" if one.met else "no",
                str(one.other_predictions),
                f"{one.payload_bytes_fp32:,.0f} B",
                f"{one.payload_bytes:,.0f} B",
                f"{one.inflation:+.2%}",
                f"{one.flips:.2%}",
                f"{one.changed:.1%}",
            ]
        )
    table = ["| " + " | ".join(row) + " |" for row in rows]
    first = losses[0]
    kept = ", ".join(dict.fromkeys(str(len(one.kept_fp32)) for one in losses))
    parts = [
        "# What int8 costs trained models",
        f"{facts['date']}, `{facts['command']}`, {facts['cpu']} ({facts['instructions']}), "
        f"{facts['cores']} cores, "
        f"{facts['system']}, Python {facts['python']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ".",
        "\n".join([table[0], "|" + " --- |" * len(head), *table[1:]]),
        f"{first.images} images of `val/`, each sent through the two halves of a bundle; "
        f"ranges are taken of {first.calibrated} images of `train/`, symbols that differ are "
        "counted on others of `train/`. fp32 is the `cpu` bundle, under the same entropy tables. "
        "Other predictions: images whose best class changed, to a right or a wrong one. "
        f"Convolutions of the device graph left in fp32: {kept}.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flowers", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR"
    )
    arguments = parser.parse_args()
    losses: list[Loss] = []
    try:
        for name in MODELS:
            with tempfile.TemporaryDirectory(prefix="int8-accuracy-") as folder:
                losses += measure(name, arguments.flowers, Path(folder))
    except SplitzooError as error:
        raise SystemExit(f"error: {error}") from error
    facts = machine() | {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/int8_accuracy.py --flowers DIR",
    }
    versions = {package: version(package) for package in PACKAGES}
    page = markdown(losses, facts, versions)
    found = [asdict(one) | {"rate_inflation": one.inflation} for one in losses]
    document = {"facts": facts, "versions": versions, "losses": found}
    numbers = f"ort{versions['onnxruntime']}-openvino{versions['openvino']}"
    stem = f"int8_accuracy.{short_name(facts)}.{numbers}"
    for suffix, text in (("json", json.dumps(document, indent=2) + "\n"), ("md", page)):
        with new_file(arguments.output / f"{stem}.{suffix}", force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
        progress(f"wrote {arguments.output / f'{stem}.{suffix}'}")
    print(page)


def progress(text: str) -> None:
    """Say on standard error what happens next."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
