"""Change what a saved model's folder holds."""

import json

import safetensors.torch

from splitrun.files import sha256_file


def change_config(folder, *path, value):
    config = json.loads((folder / "config.json").read_text())
    *parents, last = path
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder, **changes):
    """Replace tensors, or with None remove them, and correct the checksum."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name, change in changes.items():
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change(tensors.get(name)).contiguous()
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    checksum = sha256_file(folder / "model.safetensors")
    change_config(folder, "weights_sha256", value=checksum)
