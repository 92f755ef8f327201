"""Does the test suite notice faults? Put one at a time into a copy of the tree, and run the tests.

    python benchmarks/mutations.py [--only NAME] [-o results.json] [--before earlier.json]

Each mutation changes one expression of one file. The tracked files are copied to a temporary
folder, where the tests of the table have to pass as they are. Then, for each mutation, the tests
that should notice run, and where these pass, all others of the area run too. What failed is run
once more without the mutation, and has to pass. ``-o`` writes the results as JSON, and beside it
as a table in Markdown.

``--before`` names the JSON of an earlier commit's run, whose outcomes the table then shows beside.
The faults are those of ``mutation_table``.
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

from mutation_table import MUTATIONS, WIDER, Mutation

LIMIT_S = 900
"""Longest run of tests; a mutation that leaves a loop without an end is caught by it too."""


@dataclass(frozen=True)
class Result:
    """What the tests made of a mutation.

    Attributes:
        outcome: ``caught``; ``survived``; ``unsure`` where the test fails without the mutation too;
            or ``broken`` where the tests could not be run at all.
        caught_by: The first test that failed.
        seconds: Time that it took.
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


class Copy:
    """A copy of the tracked files of a tree, which its interpreter imports in place of the tree.

    Args:
        tree: Root of the checkout.
        folder: Empty folder for the copy.
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
        self._check_packages()

    def _check_packages(self) -> None:
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

    def check_fits(self, mutation: Mutation) -> None:
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

    def check_passing(self, ends: Iterable[str]) -> None:
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
        tree: Root of the checkout.
        mutations: Mutations to try.
        check: Whether their test files must pass first without any.

    Raises:
        MutationError: One does not fit, or the tests fail without any.
    """
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Copy(tree, Path(folder))
        mutations = list(mutations)
        for mutation in mutations:
            copy.check_fits(mutation)
        if check:
            copy.check_passing(sorted({name for mutation in mutations for name in mutation.tests}))
        results = []
        for mutation in mutations:
            result = copy.judge(mutation)
            results.append(result)
            _say(f"{result.name}: {result.outcome} ({result.seconds:.0f} s) {result.caught_by}")
        return results


def page(results: Iterable[Result], before: dict[str, str]) -> str:
    """Return results as a page in Markdown.

    Args:
        results: Results to show.
        before: Outcome of each mutation in an earlier run, by name.
    """
    lines = ["# Seeded faults, and which test notices them", ""]
    lines += ["Each fault changes one expression; by `python benchmarks/mutations.py`.", ""]
    lines.append("| fault | area | file | what is wrong | before | now | first test that failed |")
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for result in results:
        test = result.caught_by.replace("|", r"\|")
        row = (result.name, result.area, f"`{result.file}`", result.what)
        row += (before.get(result.name, "–"), result.outcome, f"`{test}`")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def outcomes_of(path: Path | None) -> dict[str, str]:
    """Return the outcomes of an earlier run by the names of its mutations; none without a file.

    Raises:
        MutationError: The file is not one that ``-o`` writes.
    """
    if path is None:
        return {}
    try:
        return {found["name"]: found["outcome"] for found in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MutationError(f"{path} holds no results of mutations: {error}.") from error


def main() -> int:
    """Run from the command line: 0 if all was caught, 1 if not, 2 if it could not be tried."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="this one; may be repeated")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], metavar="DIR")
    parser.add_argument(
        "--unchecked", action="store_true", help="do not run the tests without a mutation first"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    parser.add_argument("--before", type=Path, metavar="FILE.json", help="results of another run")
    given = parser.parse_args()
    known = [mutation.name for mutation in MUTATIONS]
    wrong = [name for name, times in Counter(known).items() if times > 1]
    wrong += [name for name in given.only or () if name not in known]
    if wrong:
        _say(f"Not the name of one mutation: {', '.join(wrong)}. Known: {', '.join(known)}")
        return 2
    chosen = [
        mutation for mutation in MUTATIONS if given.only is None or mutation.name in given.only
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # a shell's background ignores the first
    try:
        before = outcomes_of(given.before)
        results = run(given.tree.resolve(), chosen, check=not given.unchecked)
    except MutationError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("Stopped; the copy is removed.")
        return 130
    if given.output:
        content = json.dumps([asdict(result) for result in results], indent=2, ensure_ascii=False)
        given.output.write_text(content + "\n", encoding="utf-8")
        given.output.with_suffix(".md").write_text(page(results, before), encoding="utf-8")
    else:
        print(page(results, before), end="")
    outcomes = Counter(result.outcome for result in results)
    _say(", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
    return int(outcomes["caught"] < len(results))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
