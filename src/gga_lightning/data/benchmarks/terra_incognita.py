"""TerraIncognita: animals in front of camera traps at four locations."""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from gga_lightning.data.benchmarks.benchmark import (
    Archive,
    Benchmark,
    BenchmarkFolders,
    DatasetError,
)

__all__ = ["TerraIncognita"]

LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
PARTS = ("cis_test", "cis_val", "train", "trans_test", "trans_val")
CATEGORIES = {
    "bird",
    "bobcat",
    "cat",
    "coyote",
    "dog",
    "empty",
    "opossum",
    "rabbit",
    "raccoon",
    "squirrel",
}


def arrange(unpacked: Path, contents: tuple[str, ...]) -> Path:
    """Sorts the camera traps' images into folders of locations and categories.

    An image with two of the categories is put into both, as in DomainBed. Each image and
    each annotation is processed once.

    Args:
        unpacked: Holds the images and the five annotation files.
        contents: The folders of locations to make.

    Returns:
        The folder of the locations.

    Raises:
        DatasetError: If annotation files, or images that they name, are missing.
    """
    files = {path.name: path for path in unpacked.rglob("*") if path.is_file()}
    images, categories = _read_annotations(files)
    sorted_images = unpacked / "sorted"
    for location in contents:
        (sorted_images / location).mkdir(parents=True)
    missing = 0
    for image in images:
        location, name = f"location_{image['location']}", Path(image["file_name"]).name
        if location not in contents:
            continue
        for category in categories[image["id"]]:
            if name in files:
                folder = sorted_images / location / category
                folder.mkdir(exist_ok=True)
                _link(files[name], folder / name)
            else:
                missing += 1
    if missing:
        raise DatasetError(f"{missing:,} images that the annotations name are not in the archive.")
    return sorted_images


def _read_annotations(files: dict[str, Path]) -> tuple[list[dict[str, Any]], dict[Any, set[str]]]:
    """Reads all images, and for each image id its categories, as far as they are used."""
    images: list[dict[str, Any]] = []
    categories: defaultdict[Any, set[str]] = defaultdict(set)
    for part in PARTS:
        name = f"{part}_annotations.json"
        if name not in files:
            raise DatasetError(f"The annotations lack {name}.")
        annotations = json.loads(files[name].read_bytes())
        names = {category["id"]: category["name"] for category in annotations["categories"]}
        images += annotations["images"]
        for annotation in annotations["annotations"]:
            category = names[annotation["category_id"]]
            if category in CATEGORIES:
                categories[annotation["image_id"]].add(category)
    return images, categories


def _link(source: Path, target: Path) -> None:
    """Links a file under a second name, or copies it if the file system has no links."""
    if target.exists():  # named by two of the annotation files
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class TerraIncognita(BenchmarkFolders):
    """TerraIncognita (Beery et al., Recognition in Terra Incognita, ECCV 2018).

    Four locations and ten categories of the Caltech camera traps, chosen by DomainBed.
    Papers that report 24,788 images used earlier annotations, which are no longer available.
    Settings and attributes are those of
    :class:`~gga_lightning.data.benchmarks.benchmark.BenchmarkFolders`.
    """

    facts = Benchmark(
        key="terra_incognita",
        title="TerraIncognita",
        folder="terra_incognita",
        domains={
            "location_100": 4741,
            "location_38": 9736,
            "location_43": 3970,
            "location_46": 5883,
        },
        num_classes=len(CATEGORIES),
        licence="CDLA-Permissive (Caltech Camera Traps, at LILA)",
        homepage="https://lila.science/datasets/caltech-camera-traps",
        download_size=6_495_612_672,
        archives=(
            Archive(
                "eccv_18_all_images_sm.tar.gz",
                (f"{LILA}/eccv_18_all_images_sm.tar.gz",),
                size=6_492_615_601,
            ),
            Archive(
                "eccv_18_annotations.tar.gz",
                (f"{LILA}/eccv_18_annotations.tar.gz",),
            ),
        ),
        arrange=arrange,
        earlier_counts=(4879, 9767, 4020, 6122),
    )
