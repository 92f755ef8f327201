"""Does the test suite notice faults? Put one at a time into a copy of the tree, and run the tests.

    python benchmarks/mutations.py [--only NAME] [-o results.json]

Each mutation changes one expression of one file. The tracked files are copied to a temporary
folder, where the tests of the table have to pass as they are. Then, for each mutation, the tests
that should notice run, and where these pass, all others of the area run too. What failed is run
once more without the mutation, and has to pass. ``-o`` writes the results as JSON, and beside it
as a table in Markdown.

When the tree is reorganised, it is the table below that changes: ``file`` and ``tests`` are the
ends of paths, so folders may move; a snippet that is gone, or not the only one, is an error.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LIMIT_S = 900
"""Of one run of tests: a mutation may leave a loop without an end, and is caught then too."""


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: For ``--only``.
        area: Of the code; a key of ``WIDER``.
        what: Is wrong then, in words.
        file: End of the path of the file, enough to name one.
        old: What stands there once.
        new: What takes its place.
        tests: Ends of the paths of the test files that should notice.
    """

    name: str
    area: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What the tests made of a mutation.

    Attributes:
        outcome: ``caught``; ``survived``; ``unsure`` where the test fails without the mutation too;
            or ``broken`` where the tests could not be run at all.
        caught_by: The first test that failed.
        seconds: That it took.
    """

    name: str
    area: str
    file: str
    what: str
    outcome: str
    caught_by: str
    seconds: float


class MutationError(Exception):
    """The table does not fit the tree, or the tree fails its own tests."""


# What runs where the tests of a mutation pass.
WIDER: dict[str, tuple[str, ...]] = {
    "coding": (
        *("test_coding.py", "test_coding_plain.py", "test_coding_quantised.py"),
        *("test_coding_hyperprior.py", "test_coding_features.py", "test_coding_context.py"),
        *("test_coding_autoregressive.py", "test_coding_relu_range.py", "test_stream.py"),
        *("test_tables.py", "test_calibration.py", "test_precision_report.py", "test_zoo.py"),
    ),
    "formats": (
        *("test_stream.py", "test_tables.py", "test_record.py", "test_store.py"),
        *("test_bundle_damage.py", "test_bundle_parts.py", "test_bundle_graphs.py"),
        *("test_export.py", "test_runtime.py", "test_packaged.py", "test_misfits.py"),
    ),
    "parity": (
        *("test_precision_report.py", "test_precision.py", "test_export.py", "test_record.py"),
        *("test_bundle_damage.py", "test_bundle_parts.py", "test_bundle_graphs.py"),
        *("test_runtime.py", "test_targets.py"),
    ),
    "preprocessing": (
        *("test_preprocessing.py", "test_preprocessing_padded.py", "test_detection_steps.py"),
        *("test_detection.py", "test_segmentation.py", "test_runtime.py"),
    ),
    "profile": ("test_profile.py", "test_cards.py", "test_tradeoff.py"),
    "Hub": (
        *("test_hub.py", "test_hub_faults.py", "test_hub_push.py", "test_hub_commands.py"),
        *("test_pretrained.py", "test_store.py", "test_zoo.py"),
    ),
}

MUTATIONS: tuple[Mutation, ...] = (
    # Coding
    Mutation(
        "escape-low-bits",
        "coding",
        "Escapes send 15 low bits and not 16: both sides agree, but the format is another.",
        "coding/ans.py",
        "_LOW_BITS = 16",
        "_LOW_BITS = 15",
        ("test_coding.py",),
    ),
    Mutation(
        "zero-bytes-at-the-end",
        "coding",
        "Zero bytes after a payload are taken, so one image has many streams.",
        "coding/ans.py",
        r'payload.endswith(b"\0")',
        r'payload == b"\0"',
        ("test_coding.py",),
    ),
    Mutation(
        "plain-coder-spills-late",
        "coding",
        "The coder in plain Python spills one state too late, at equality.",
        "coding/plain_ans.py",
        "if state >> _SPILL >= frequency",
        "if state >> _SPILL > frequency",
        ("test_coding_plain.py",),
    ),
    Mutation(
        "scale-indexes-unchecked",
        "coding",
        "Of the check of the scale indexes the length alone is compared.",
        "coding/hyperprior.py",
        "if index_check(indexes) != check",
        "if len(index_check(indexes)) != len(check)",
        ("test_coding_hyperprior.py",),
    ),
    Mutation(
        "scales-and-means-swapped",
        "coding",
        "The context network gives means where scales are wanted, and the reverse.",
        "coding/context_network.py",
        "np.split(x, 2, axis=1)",
        "np.split(x, 2, axis=1)[::-1]",
        ("test_coding_autoregressive.py",),
    ),
    Mutation(
        "context-mean-rounding",
        "coding",
        "Predicted means are rounded with 127/256 added and not a half.",
        "context/sparse.py",
        "mean += ONE // 2",
        "mean += ONE // 2 - 1",
        ("test_coding_context.py",),
    ),
    Mutation(
        "live-margin-sign",
        "coding",
        "The margin around the edge's threshold lies on the wrong side: live values are lost.",
        "coding/relu_range.py",
        "np.floor(end - _MARGIN",
        "np.floor(end + _MARGIN",
        ("test_coding_relu_range.py",),
    ),
    Mutation(
        "feature-steps-round-down",
        "coding",
        "Steps of features are rounded to the nearest, so the greatest feature may be cut.",
        "coding/features.py",
        "np.uint32(0xFFFF)) >> 16",
        "np.uint32(0x7FFF)) >> 16",
        ("test_coding_features.py",),
    ),
    Mutation(
        "fitted-to-held-out",
        "coding",
        "Calibration compares codings on photographs that it was fitted to.",
        "calibration/images.py",
        "images[::_HELD_OUT]",
        "images[1::_HELD_OUT]",
        ("test_precision_report.py",),
    ),
    # Formats
    Mutation(
        "shape-big-endian",
        "formats",
        "Height and width stand in a stream with the high byte first.",
        "coding/stream.py",
        '_SHAPE = struct.Struct("<HH")',
        '_SHAPE = struct.Struct(">HH")',
        ("test_stream.py",),
    ),
    Mutation(
        "crc-unchecked",
        "formats",
        "The CRC-32 of a stream is read and compared with nothing.",
        "coding/stream.py",
        "!= zlib.crc32(body)",
        "is None",
        ("test_stream.py",),
    ),
    Mutation(
        "digest-without-offsets",
        "formats",
        "The id of a model does not depend on the offsets of its tables.",
        "coding/tables.py",
        "content.update(self.offset",
        "content.update(self.length",
        ("test_tables.py",),
    ),
    Mutation(
        "file-hash-unchecked",
        "formats",
        "A file of a bundle may have any SHA-256.",
        "splitrun/bundle.py",
        "if found != expected",
        "if len(found) != len(expected)",
        ("test_bundle_damage.py",),
    ),
    Mutation(
        "saved-hash-unchecked",
        "formats",
        "The weights of a saved model may have any SHA-256.",
        "zoo/store.py",
        "if found != config.weights_sha256",
        "if len(found) != len(config.weights_sha256)",
        ("test_store.py",),
    ),
    # Parity and self-tests
    Mutation(
        "off-by-one-anywhere",
        "parity",
        "A symbol may be off by one anywhere and not at ties alone.",
        "splitrun/comparison.py",
        "(difference > 1) | ((difference == 1) & ~tied)",
        "difference > 1",
        ("test_export.py", "test_precision_report.py"),
    ),
    Mutation(
        "nan-passes",
        "parity",
        "An output that is not a number passes.",
        "splitrun/comparison.py",
        "if not error <= tolerance",
        "if error > tolerance",
        ("test_bundle_parts.py",),
    ),
    Mutation(
        "halves-uncompared",
        "parity",
        "The edge may read other symbols than the device here wrote, of the same shape.",
        "splitrun/selftest.py",
        "not np.array_equal(tensor[0], expected[info.name])",
        "one[0].shape != expected[info.name].shape",
        ("test_bundle_graphs.py",),
    ),
    Mutation(
        "nothing-but-ties",
        "parity",
        "A record may call every symbol tied.",
        "export/verification.py",
        "if selftest.symbols_tied > MAX_TIED",
        "if selftest.symbols_differing > MAX_TIED",
        ("test_bundle_parts.py",),
    ),
    Mutation(
        "last-convolution-left-out",
        "parity",
        "The last convolution does not count to what leads to a rounding.",
        "precision/node_roles.py",
        "if position >= last",
        "if position > last",
        ("test_precision.py",),
    ),
    # Preprocessing
    Mutation(
        "mean-and-std-swapped",
        "preprocessing",
        "Pixels are normalised with mean and standard deviation swapped.",
        "preprocessing.py",
        "(levels - np.float32(mean)) / np.float32(std)",
        "(levels - np.float32(std)) / np.float32(mean)",
        ("test_preprocessing.py",),
    ),
    Mutation(
        "longer-side-rounded",
        "preprocessing",
        "The longer side is rounded and not truncated.",
        "preprocessing.py",
        "int(self.resize * longer / shorter)",
        "round(self.resize * longer / shorter)",
        ("test_preprocessing.py",),
    ),
    Mutation(
        "box-offset-unscaled",
        "preprocessing",
        "Boxes are scaled back before the corner of the crop is added.",
        "preprocessing.py",
        "(boxes + corner) * ratio",
        "boxes * ratio + corner",
        ("test_preprocessing_padded.py",),
    ),
    # FLOPs, size, rate
    Mutation(
        "bias-everywhere",
        "profile",
        "Convolutions without a bias are counted with one.",
        "profile/flops.py",
        "if inputs[2].isCompleteTensor()",
        "if inputs[1].isCompleteTensor()",
        ("test_profile.py",),
    ),
    Mutation(
        "nats-not-bits",
        "profile",
        "The estimated rate is in nats.",
        "profile/rate.py",
        "tensor.log2()",
        "tensor.log()",
        ("test_profile.py",),
    ),
    Mutation(
        "tables-twice",
        "profile",
        "Given tables are counted beside the model's own.",
        "profile/size.py",
        "in TABLE_BUFFERS:",
        "in ():",
        ("test_profile.py",),
    ),
    # Hub
    Mutation(
        "revision-ignored",
        "Hub",
        "The commit of the main branch is taken, whatever revision was named.",
        "zoo/hub.py",
        "CONFIG_NAME, revision=repo.revision)",
        "CONFIG_NAME)",
        ("test_hub.py",),
    ),
    Mutation(
        "downloaded-hash-unchecked",
        "Hub",
        "Downloaded weights may have any SHA-256.",
        "zoo/hub.py",
        "if found == config.weights_sha256",
        "if len(found) == len(config.weights_sha256)",
        ("test_hub_faults.py",),
    ),
    Mutation(
        "branch-never-followed",
        "Hub",
        "A branch in the cache is never asked for anew.",
        "zoo/hub.py",
        "if cached is not None and cached == repo.revision",
        "if cached is not None",
        ("test_hub.py",),
    ),
    Mutation(
        "private-into-public",
        "Hub",
        "A model that is to be private may be pushed to a public repository.",
        "zoo/hub_push.py",
        "if private and not hub.model_info(repo.repo_id).private",
        "if private and hub.model_info(repo.repo_id).private is None",
        ("test_hub_push.py",),
    ),
    Mutation(
        "token-repeated",
        "Hub",
        "A token that the server repeats is repeated in the message.",
        "zoo/hub_errors.py",
        'sent.removeprefix("Bearer ")',
        "sent",
        ("test_hub_faults.py",),
    ),
)


class Copy:
    """A copy of the tracked files of a tree, which its interpreter imports in place of the tree.

    Args:
        tree: Of which.
        folder: To copy to; empty.
    """

    def __init__(self, tree: Path, folder: Path) -> None:
        own = tree / ".venv/bin/python"
        self._python = str(own if own.exists() else sys.executable)
        self._root, self._scratch = folder / "tree" / "splitzoo", folder / "pytest"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=tree, capture_output=True, text=True, check=True
        )
        self._files = [name for name in listed.stdout.split("\0") if (tree / name).is_file()]
        for name in self._files:
            target = self._root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target)
        imported = folder / "imported"
        imported.mkdir()
        (imported / "splitzoo").symlink_to(self._root)
        if (self._root / "splitrun").is_dir():
            (imported / "splitrun").symlink_to(self._root / "splitrun")
        self._environment = os.environ | {"PYTHONPATH": str(imported)}
        self._refuse_other_package()

    def _refuse_other_package(self) -> None:
        for package in self._root.parent.parent.joinpath("imported").iterdir():
            code = f"import {package.name}; print({package.name}.__file__)"
            found = self._run([self._python, "-c", code]).stdout.strip()
            if not found or package.resolve() not in Path(found).resolve().parents:
                raise MutationError(f"{package.name} is imported from {found or 'nowhere'}.")

    def find(self, end: str) -> str:
        """Return the one file whose path ends so.

        Raises:
            MutationError: There is none, or there are several.
        """
        found = [name for name in self._files if f"/{name}".endswith(f"/{end}")]
        if len(found) != 1:
            raise MutationError(f"{end} names {', '.join(found) or 'no file of the tree'}.")
        return found[0]

    def checked(self, mutation: Mutation) -> None:
        """See that a mutation fits.

        Raises:
            MutationError: Its snippet or its tests are not there, or its snippet not just once.
        """
        name = self.find(mutation.file)
        times = (self._root / name).read_text(encoding="utf-8").count(mutation.old)
        if times != 1:
            how = "is not in" if not times else f"is {times} times in"
            raise MutationError(f"{mutation.name}: {mutation.old!r} {how} {name}.")
        for test in (*mutation.tests, *WIDER[mutation.area]):
            self.find(test)

    def test(self, tests: Iterable[str]) -> tuple[int, list[str], str]:
        """Run tests up to the first failure.

        Args:
            tests: Paths within the copy, or ids of tests.

        Returns:
            The exit code of pytest, or -1 after :data:`LIMIT_S`; the ids of what failed; and all
            that was printed.
        """
        # What is remembered of the run before would change this one.
        shutil.rmtree(self._root / ".hypothesis", ignore_errors=True)
        words = [self._python, "-m", "pytest", "-q", "-x", "--tb=line", "-m", "not slow"]
        words += ["-p", "no:cacheprovider", "--hypothesis-seed=0", f"--basetemp={self._scratch}"]
        try:
            done = self._run([*words, *tests])
        except subprocess.TimeoutExpired:
            return -1, [], f"no end within {LIMIT_S} s"
        failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
        return done.returncode, failed, done.stdout + done.stderr

    def _run(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words,
            cwd=self._root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def judge(self, mutation: Mutation) -> Result:
        """Put a mutation in, run the tests, and take it out again."""
        path = self._root / self.find(mutation.file)
        before, began = path.read_bytes(), time.monotonic()
        changed = before.decode().replace(mutation.old, mutation.new)
        try:
            self._write(path, changed.encode())
            outcome, caught_by = self._outcome(mutation)
        finally:
            self._write(path, before)
        if "::" in caught_by and self.test([caught_by.partition("[")[0]])[0]:
            outcome = "unsure"
        seconds = round(time.monotonic() - began, 1)
        known = mutation.name, mutation.area, self.find(mutation.file), mutation.what
        return Result(*known, outcome=outcome, caught_by=caught_by, seconds=seconds)

    def _outcome(self, mutation: Mutation) -> tuple[str, str]:
        wider = [name for name in WIDER[mutation.area] if name not in mutation.tests]
        for files in (mutation.tests, wider):
            code, failed, said = self.test(map(self.find, files))
            if code == -1:
                return "caught", f"{said}: {', '.join(files)}"
            if code == 1 and failed:
                return "caught", failed[0]
            if code:
                return "broken", said.strip().rpartition("\n")[2]
        return "survived", ""

    def _write(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        # Compiled within the same second and as long, the old one would be taken for the new.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def refuse_failing(self, ends: Iterable[str]) -> None:
        """See that test files pass without a mutation.

        Raises:
            MutationError: One does not.
        """
        for path in map(self.find, ends):
            began = time.monotonic()
            code, failed, said = self.test([path])
            if code:
                raise MutationError(f"Without a mutation, tests fail: {', '.join(failed) or said}")
            _say(f"{path} passes without a mutation ({time.monotonic() - began:.0f} s)")


def run(tree: Path, mutations: Iterable[Mutation], *, check: bool = True) -> list[Result]:
    """Try mutations on a copy of a tree.

    Args:
        tree: Of which.
        mutations: To try.
        check: See first that their test files pass without any.

    Raises:
        MutationError: One does not fit, or the tests fail without any.
    """
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Copy(tree, Path(folder))
        mutations = list(mutations)
        for mutation in mutations:
            copy.checked(mutation)
        if check:
            copy.refuse_failing(sorted({name for one in mutations for name in one.tests}))
        results = []
        for mutation in mutations:
            result = copy.judge(mutation)
            results.append(result)
            _say(f"{result.name}: {result.outcome} ({result.seconds:.0f} s) {result.caught_by}")
        return results


def table(results: Iterable[Result]) -> str:
    """Return results as a table in Markdown."""
    lines = ["| mutation | area | file | what is wrong | outcome | first test that failed |"]
    lines.append("|---|---|---|---|---|---|")
    for one in results:
        test = one.caught_by.replace("|", r"\|")
        row = one.name, one.area, f"`{one.file}`", one.what, one.outcome, f"`{test}`"
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run from the command line: 0 if all was caught, 1 if not, 2 if it could not be tried."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="this one; may be repeated")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], metavar="DIR")
    parser.add_argument(
        "--unchecked", action="store_true", help="do not run the tests without a mutation first"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    given = parser.parse_args()
    known = [mutation.name for mutation in MUTATIONS]
    wrong = [name for name, times in Counter(known).items() if times > 1]
    wrong += [name for name in given.only or () if name not in known]
    if wrong:
        _say(f"Not the name of one mutation: {', '.join(wrong)}. Known: {', '.join(known)}")
        return 2
    chosen = [one for one in MUTATIONS if not given.only or one.name in given.only]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # a shell's background ignores the first
    try:
        results = run(given.tree.resolve(), chosen, check=not given.unchecked)
    except MutationError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("Stopped; the copy is removed.")
        return 130
    if given.output:
        content = json.dumps([asdict(one) for one in results], indent=2, ensure_ascii=False)
        given.output.write_text(content + "\n", encoding="utf-8")
        given.output.with_suffix(".md").write_text(table(results), encoding="utf-8")
    else:
        print(table(results), end="")
    outcomes = Counter(one.outcome for one in results)
    _say(", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
    return int(outcomes["caught"] < len(results))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
