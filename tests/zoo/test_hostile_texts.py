"""Control characters in documents, recipes and data sets are refused where they enter."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from splitrun.errors import BundleError, DatasetError, ModelFolderError, RecipeError
from splitzoo.export import verify
from splitzoo.zoo.config import read_config
from splitzoo.zoo.datasets import read_dataset
from splitzoo.zoo.train.recipe_files import FOLDER, read_recipe

STEERING = ["\x1b]0;title\x07", "\u202egpj.exe", "a\nb", "\0"]
SAYING = "which holds control characters"


@pytest.mark.parametrize("text", [*STEERING, "x" * 20_000])
def test_texts_of_a_config_are_plain_and_short(tiny_folder, tmp_path, text) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["origin"] = text
    (folder / "config.json").write_text(json.dumps(config))
    saying = "has 20,000 characters" if len(text) > 9999 else SAYING
    with pytest.raises(ModelFolderError, match=f"origin .*{saying}") as caught:
        read_config(folder)
    assert text not in caught.value.message


@pytest.mark.parametrize("text", STEERING)
def test_texts_of_a_manifest_are_plain(tiny_bundle, tmp_path, text) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["provenance"]["versions"]["torch"] = text
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"provenance.versions.torch is .*{SAYING}"):
        verify(folder)


@pytest.mark.parametrize("text", STEERING)
def test_texts_of_a_recipe_are_plain(tmp_path, text) -> None:
    name = "channel_reduction.yaml"
    recipe = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    path = tmp_path / name
    path.write_text(yaml.safe_dump(recipe | {"models": [text]}))
    with pytest.raises(RecipeError, match=f"models.0 is .*{SAYING}"):
        read_recipe(path)


@pytest.mark.parametrize("text", STEERING[:3])
def test_a_class_folder_s_name_is_plain(tmp_path, text) -> None:
    for name in ("daisy", text.replace("/", "")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    with pytest.raises(DatasetError, match="holds a name with control characters") as caught:
        read_dataset("image-classification", tmp_path, "train")
    assert text not in caught.value.message
