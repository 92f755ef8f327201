"""What is meant by a model: a name, a folder, a bundle, a repository on the Hub."""

import subprocess
import sys
from pathlib import Path

import pytest

from splitrun.errors import SplitzooError, UnknownNameError
from splitzoo import zoo
from splitzoo.zoo.resolve import ModelSource

NAME = "splittable_resnet50-fp-beta0.08"
CONFIGURATION = "ilsvrc2012/input_compression/jpeg-resnet50"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder that holds folders of telling names."""
    for name in ("model", "org/name", NAME, "~odd"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # A registered name is one even where a folder of that name lies; a Path never is.
        (NAME, ModelSource(name=NAME)),
        (Path(NAME), ModelSource(folder=Path(NAME))),
        (f"./{NAME}", ModelSource(folder=Path(NAME))),
        # Names of configurations hold slashes.
        (CONFIGURATION, ModelSource(name=CONFIGURATION)),
        ("splittable_anything-fp", ModelSource(name="splittable_anything-fp")),
        ("file", ModelSource(name="file")),
        ("model", ModelSource(folder=Path("model"))),
        ("model/", ModelSource(folder=Path("model"))),
        ("./model", ModelSource(folder=Path("model"))),
        ("~odd", ModelSource(folder=Path("~odd"))),
        (".", ModelSource(folder=Path())),
        # A folder that is there comes before a repository.
        ("org/name", ModelSource(folder=Path("org/name"))),
        ("org/other", ModelSource(repository="org/other")),
        ("org/name@v1", ModelSource(repository="org/name@v1")),
        ("o.r-g/n_a.me@refs/pr/3", ModelSource(repository="o.r-g/n_a.me@refs/pr/3")),
    ],
    ids=str,
)
def test_what_is_meant(place, given, expected):
    assert ModelSource.of(given) == expected


def test_a_name_of_a_family_beats_a_folder_unless_it_is_written_as_a_path(place):
    for name in ("splittable_resnet50-fp-beta7", "resnet101-webp-q3"):
        (place / name).mkdir()
        assert ModelSource.of(name) == ModelSource(name=name)
        for path in (f"./{name}", f"{name}/", Path(name)):
            assert ModelSource.of(path) == ModelSource(folder=Path(name))
    # Not a name of anything, whatever it looks like.
    (place / "splittable_mine-fp").mkdir()
    assert ModelSource.of("splittable_mine-fp") == ModelSource(folder=Path("splittable_mine-fp"))


def test_a_revision_is_of_a_repository_and_not_of_a_folder(place):
    assert ModelSource.of("org/other", revision="v1") == ModelSource(repository="org/other@v1")
    assert ModelSource.of(NAME, revision="v1") == ModelSource(name=NAME, revision="v1")
    with pytest.raises(UnknownNameError, match="No revision is named 'v1'"):
        ModelSource.of("./model", revision="v1")


@pytest.mark.parametrize(
    "program",
    [
        "from splitzoo.zoo.resolve import ModelSource; print(ModelSource.of({!r}).name)",
        "from splitzoo.zoo.models import find_spec; print(find_spec({!r}).reference)",
    ],
)
def test_names_are_known_whatever_is_imported_first(program):
    command = [sys.executable, "-c", program.format(CONFIGURATION)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (CONFIGURATION, "")


def test_a_bundle_is_told_from_a_saved_model(splitzoo, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    code, _, err = splitzoo("zoo", "show", tmp_path)
    assert code == 1
    assert "is a bundle, not a saved model" in err
    assert f"splitzoo export verify {tmp_path}" in err


@pytest.mark.parametrize(
    "given",
    [
        *("./nowhere", "../nowhere/x", "/nowhere", "~/nowhere", "a/b/c", "a\\b", "org/na me"),
        *("C:\\models\\x", "org/name@", "https://huggingface.co/org/name", "x/file/nowhere/deep"),
        *(Path("nowhere"), Path("org/other"), Path("file")),
    ],
    ids=str,
)
def test_a_path_to_nothing_is_an_unknown_folder(place, given):
    for read in (ModelSource.of, zoo.load, zoo.get_spec):
        with pytest.raises(UnknownNameError) as caught:
            read(given)
        assert (caught.value.kind, caught.value.name) == ("model folder", str(given))
        assert "config.json" in caught.value.next_step


def test_whatever_is_given_is_answered_with_an_error_of_ours(place, hub):
    for given in ("", " ", "\0", "a" * 5000, "a/" + "b" * 5000, "…", "org/na--me", "a/b@..", "-x"):
        with pytest.raises(SplitzooError):
            zoo.get_spec(given)
