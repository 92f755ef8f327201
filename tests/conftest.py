import os
import shutil
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hub_server import HubServer
from hypothesis import settings
from names_of_models import RESNET
from PIL import Image, ImageOps
from platformdirs import user_cache_path

from splitzoo import cli
from splitzoo.export.formats.onnx_file import OnnxFormat

pytest.register_assert_rewrite("commands")
# A machine that does other work too is slow, and not wrong.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

REPOSITORY = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write tests/golden anew instead of comparing with it",
    )


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What is remembered of the tests' images stays with them; environments are the user's."""
    made, folder = user_cache_path("splitzoo") / "environments", tmp_path_factory.mktemp("cache")
    if made.is_dir():
        (folder / "splitzoo").mkdir()
        (folder / "splitzoo" / "environments").symlink_to(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield


@pytest.fixture(scope="session")
def model():
    """A ResNet-50 of the paper with random weights. Shared: tests leave it as it is."""
    from splitzoo import zoo

    return zoo.load(RESNET, pretrained=False, seed=0)


@pytest.fixture(scope="session")
def tiny_model():
    """A model of the same method that is built, saved and run in milliseconds. Shared too."""
    from splitzoo import zoo
    from splitzoo.zoo.bottleneck_specs import FactorizedPriorBottleneck

    sizes = FactorizedPriorBottleneck(encoder_channels=(8, 8, 4), decoder_channels=(16, 16, 32))
    changes = {"name": "tiny", "backbone": "test_resnet", "num_classes": 10, "bottleneck": sizes}
    return zoo.build(zoo.get_spec(RESNET).model_copy(update=changes))


@pytest.fixture(scope="session")
def bundle(model, tmp_path_factory):
    """The bundle of ``model``. Shared: tests leave it as it is."""
    return _exported(model, tmp_path_factory, "bundle")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model, tmp_path_factory):
    """The bundle of ``tiny_model``, small enough to copy and damage. Shared too."""
    return _exported(tiny_model, tmp_path_factory, "tiny-bundle")


@pytest.fixture(scope="session")
def batched_bundle(tiny_model, tmp_path_factory):
    """The bundle of ``tiny_model`` with graphs that take several images at once. Shared too."""
    return _exported(tiny_model, tmp_path_factory, "batched-bundle", dynamic_batch=True)


@pytest.fixture(scope="session")
def jetson_bundle(tiny_model, tmp_path_factory):
    """The bundle of ``tiny_model`` for a Jetson, both halves of it for TensorRT. Shared too."""
    options = {"target": "jetson", "edge": "tensorrt", "dynamic_batch": True}
    return _exported(tiny_model, tmp_path_factory, "jetson-bundle", **options)


def _exported(model, tmp_path_factory, name, **options):
    """Export a model once for all processes of pytest-xdist."""
    from splitzoo import export

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / f"{name}.lock"):
        if not (base / name).exists():
            export.split(model, base / name, **options)
    return base / name


@pytest.fixture(scope="session")
def tiny_folder(tiny_model, tmp_path_factory):
    """The folder of ``tiny_model``, for commands that take a model."""
    from splitzoo import zoo

    return zoo.save(tiny_model, tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    """A Hub of nobody's models and an empty cache, in place of the real ones."""
    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    with HubServer() as server:
        server.waits = server.connect(monkeypatch, folder / "cache")
        yield server


@pytest.fixture(scope="session")
def photo():
    """An image that every installation has."""
    from matplotlib.cbook import get_sample_data

    return Path(get_sample_data("grace_hopper.jpg", asfileobj=False))


@pytest.fixture(scope="session")
def photos(photo, tmp_path_factory):
    """Ten photos: those of a folder where there is one, or pieces of ``photo``."""
    from splitrun.image_files import list_images

    folder = Path(os.environ.get("SPLITZOO_PHOTOS", REPOSITORY.parent / "shared/data/photos"))
    if not folder.is_dir() and "SPLITZOO_PHOTOS" not in os.environ:
        folder = tmp_path_factory.mktemp("photos")
        _cut_up(photo, folder)
    return list_images(folder)[:10]


def _cut_up(photo, folder):
    with Image.open(photo) as opened:
        whole = opened.convert("RGB")
    for number in range(10):
        left, top = 23 * number, 31 * number
        piece = whole.crop((left, top, left + 290 - 5 * number, top + 300))
        piece = ImageOps.mirror(piece) if number % 2 else piece
        piece.save(folder / f"{number}.jpg", quality=95)


@pytest.fixture
def damaged(tiny_bundle, tmp_path):
    """A copy of the tiny bundle, to damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "damaged")


@pytest.fixture
def splitzoo(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    # The paths of pytest-xdist's folders are long, and tables are not to be broken for them.
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["splitzoo", *map(str, words)])
        code = cli.run()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def copied_graphs(monkeypatch, tiny_bundle):
    """Export takes its graphs from the tiny bundle: the same, and no seconds spent."""

    def copy(_format, _source, path) -> None:
        shutil.copyfile(tiny_bundle / path.parent.name / path.name, path)

    monkeypatch.setattr(OnnxFormat, "write", copy)
