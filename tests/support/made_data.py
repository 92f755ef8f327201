"""Small data sets that tests make: files of shapes, as folders of classes, COCO and VOC."""

import json

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("bars", "discs", "plain")


def made_image(kind: str, seed: int, size: int = 64) -> Image.Image:
    """A noisy image that shows a class."""
    random = np.random.default_rng((seed, len(kind), ord(kind[0])))
    ground = random.integers(0, 90, (size, size, 3)).astype(np.uint8)
    image = Image.fromarray(ground)
    draw = ImageDraw.Draw(image)
    colour = tuple(int(value) for value in random.integers(150, 256, 3))
    if kind == "bars":
        for left in range(int(random.integers(0, 8)), size, 12):
            draw.rectangle((left, 0, left + 4, size), fill=colour)
    elif kind == "discs":
        x, y = (int(value) for value in random.integers(14, size - 14, 2))
        draw.ellipse((x - 13, y - 13, x + 13, y + 13), fill=colour)
    return image


def make_folders(folder, *, train: int = 8, val: int = 4):
    """``train`` and ``val``, each with a folder per class."""
    for split, count, first in (("train", train, 0), ("val", val, 1000)):
        for kind in CLASSES:
            place = folder / split / kind
            place.mkdir(parents=True)
            for number in range(count):
                made_image(kind, first + number).save(place / f"{kind}{number}.png")
    return folder


def make_coco(folder, *, count: int = 4, size: int = 64):
    """COCO 2017 with one disc in each image, and a crowd in the last."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        files = folder / f"{split}2017"
        files.mkdir()
        images, annotations = [], []
        for number in range(count):
            name = f"{number:012d}.jpg"
            made_image("discs", number, size).save(files / name, quality=95)
            images.append({"id": number, "file_name": name, "width": size, "height": size})
            box = [8.0 + number, 10.0, 26.0, 28.0]
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 3,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(number == count - 1),
                }
            )
        document = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 3, "name": "disc"}],
        }
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(document))
    return folder


def make_voc(folder, *, count: int = 3, size: int = 64):
    """PASCAL VOC 2012: class 5 in each image, and a border where nothing is said."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for split, first in (("train", 0), ("val", 100)):
        names = [f"{split}_{number}" for number in range(count)]
        (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for number, name in enumerate(names):
            made_image("discs", first + number, size).save(folder / "JPEGImages" / f"{name}.jpg")
            classes = np.zeros((size, size), np.uint8)
            classes[20:44, 20:44] = 5
            classes[18:20] = 255
            Image.fromarray(classes).save(folder / "SegmentationClass" / f"{name}.png")
    return folder
