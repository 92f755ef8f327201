"""Python environments of their own, for converters that cannot share one with splitzoo.

They lie in the user's cache folder. ``splitzoo export prepare TARGET`` makes them.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from splitrun.engines.apart import variable_of
from splitrun.errors import BundleError, DependencyError
from splitrun.signals import check_stopped

_CONVERTERS = Path(__file__).with_name("converters")


@dataclass(frozen=True)
class Environment:
    """A Python environment for one kind of converter.

    Attributes:
        name: Name of the target that it is for.
        requirements: What pip installs into it, at exact versions.
        python: Oldest release of Python that these run on.
        beside: Whether what is installed beside splitzoo, such as PyTorch, is there too, behind
            its own requirements. It is then of the same Python as splitzoo.
        runs: Whether the engine runs in it too, not only the converter.
    """

    name: str
    requirements: tuple[str, ...]
    python: tuple[int, int] = (3, 11)
    beside: bool = False
    runs: bool = False

    @property
    def folder(self) -> Path:
        """Where it lies: other requirements, another folder."""
        digest = hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()[:8]
        return user_cache_path("splitzoo") / "environments" / f"{self.name}-{digest}"

    @property
    def is_made(self) -> bool:
        """Whether all of it is there."""
        return self._mark.is_file()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its packages."""
        return dict(one.split("==") for one in self.requirements)

    @property
    def command(self) -> str:
        """Command that makes it."""
        return f"splitzoo export prepare {self.name}"

    @property
    def _mark(self) -> Path:
        return self.folder / "made"

    @property
    def _python(self) -> Path:
        windows = sys.platform == "win32"
        return self.folder / ("Scripts/python.exe" if windows else "bin/python")

    def make(self) -> None:
        """Make it, unless it is there: with uv where that is installed, else with venv and pip.

        Raises:
            DependencyError: No Python is new enough, or the requirements cannot be installed.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            if self.is_made:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            try:
                for words in self._steps():
                    check_stopped()
                    done = subprocess.run(words, capture_output=True, text=True, check=False)
                    if done.returncode:
                        raise DependencyError(
                            f"The environment for {self.name} cannot be made: {_last_line(done)}"
                        )
                if self.beside:
                    self._add_splitzoos_packages()
                self._mark.touch()
            finally:
                if not self.is_made:
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[list[str]]:
        release = ".".join(map(str, self.python))
        if uv := shutil.which("uv"):
            wanted = sys.executable if self.beside else f">={release}"
            return [
                [uv, "venv", "--python", wanted, str(self.folder)],
                [uv, "pip", "install", "--python", str(self._python), *self.requirements],
            ]
        return [
            [self._interpreter(release), "-m", "venv", str(self.folder)],
            [str(self._python), "-m", "pip", "install", *self.requirements],
        ]

    def _interpreter(self, release: str) -> str:
        newer = (f"python3.{minor}" for minor in range(self.python[1], self.python[1] + 3))
        for name in (sys.executable, *filter(shutil.which, newer)):
            says = [name, "-c", f"import sys; sys.exit(sys.version_info < {self.python})"]
            if not subprocess.run(says, capture_output=True, check=False).returncode:
                return name
        raise DependencyError(
            f"The converter of {self.name} needs Python {release} or later, and none is here.",
            next_step=f"pip install uv, which fetches it; then: {self.command}",
        )

    def _add_splitzoos_packages(self) -> None:
        """Let the environment find splitzoo's packages after its own."""
        own = Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))
        beside = [path for path in sys.path if Path(path).name == "site-packages"]
        lines = [f"import site; site.addsitedir({path!r})\n" for path in beside]
        (own / "splitzoo_packages.pth").write_text("".join(lines), encoding="utf-8")

    def offer(self) -> None:
        """Let this process, and those that it starts, run the engine in it."""
        if self.runs and self.is_made:
            os.environ.setdefault(variable_of(self.name), str(self._python))

    def run(self, converter: str, *words: str) -> None:
        """Run a converter of :mod:`splitzoo.export.converters` in it.

        Raises:
            DependencyError: It is not made.
            BundleError: The converter failed; the message has its last line.
        """
        self.check_made()
        program = [str(self._python), "-P", str(_CONVERTERS / f"{converter}.py"), *words]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        if done.returncode:
            what = Path(words[-1] if words else converter).stem
            raise BundleError(f"{converter} cannot convert {what}: {_last_line(done)}")

    def check_made(self) -> None:
        """Raise ``DependencyError`` if it is not made; it says how to make it."""
        if not self.is_made:
            raise DependencyError(
                f"The converter of {self.name} needs an environment of its own, which is not made "
                "yet.",
                next_step=self.command,
            )


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    """Return what a program said last, or how it ended."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"it ended with code {done.returncode}"
