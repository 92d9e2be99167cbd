"""Rebuilds the embedded emoji, byte for byte, from the packages that their drawings come in.

    python -m venv emoji && emoji/bin/pip install resvg-py==0.5.0 pillow==13.0.0
    emoji/bin/python tools/build_emoji.py emoji.zip
    cmp emoji.zip src/gga_lightning/data/embedded/emoji.zip

It downloads seven packages (30 MB) from the npm registry, whose contents are pinned, draws each
emoji at 64 x 64 pixels on white, and takes about a minute. Vendors and licences are in
src/gga_lightning/data/embedded/NOTICE.md.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import tarfile
import unicodedata
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import resvg_py
from PIL import Image

SIZE = 64
REGISTRY = "https://registry.npmjs.org"
PACKAGES = {  # with the SHA-256 of what the registry sends
    "@iconify-json/noto@1.2.9": "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "@iconify-json/twemoji@1.2.5": (
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
    ),
    "@iconify-json/openmoji@1.2.29": (
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"
    ),
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
    ),
    "@iconify-json/emojione-monotone@1.2.1": (
        "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e"
    ),
    # for names and code points only
    "@iconify-json/fluent-emoji-flat@1.2.6": (
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
    ),
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}
STYLES = {
    "noto": "@iconify-json/noto",
    "twemoji": "@iconify-json/twemoji",
    "fluent-3d": "@lobehub/fluent-emoji-3d",
    "openmoji": "@iconify-json/openmoji",
    "emojione-mono": "@iconify-json/emojione-monotone",
}
NAMED = ("noto", "twemoji", "openmoji", "fluent-emoji-flat")  # icon sets that give code points
CLASSES = {  # of subgroups in Unicode's emoji-test.txt, as emojibase spells them
    "face": [
        *("face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical"),
        *("face-sleepy", "face-unwell", "face-hat", "face-glasses", "face-concerned"),
        "face-negative",
    ],
    "hand": [
        *("hand-fingers-open", "hand-fingers-partial", "hand-single-finger"),
        *("hand-fingers-closed", "hands", "hand-prop"),
    ],
    "mammal": ["animal-mammal"],
    "bird": ["animal-bird"],
    "plant": ["plant-flower", "plant-other"],
    "produce": ["food-fruit", "food-vegetable"],
    "meal": ["food-prepared", "food-asian", "food-sweet"],
    "building": ["place-building", "place-religious"],
    "vehicle": ["transport-ground", "transport-water", "transport-air"],
    "clothing": ["clothing"],
}
NOT_OBJECTS = {  # signs, lights and parts among the vehicles; paw prints among the mammals
    *("1F68F", "1F6A5", "1F6A6", "1F6D1", "1F6A7", "1F6A8", "1F6E3", "1F6E4", "1F6DE", "26FD"),
    *("2693", "1F4BA", "1F43E"),
}


class Kind(NamedTuple):
    """What an emoji shows."""

    label: str
    class_name: str


class Package:
    """A package of the npm registry, in memory."""

    def __init__(self, name: str) -> None:
        (full,) = (known for known in PACKAGES if known.rpartition("@")[0] == name)
        version, base = full.rpartition("@")[2], name.rpartition("/")[2]
        url = f"{REGISTRY}/{name}/-/{base}-{version}.tgz"
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
        digest = hashlib.sha256(content).hexdigest()
        if digest != PACKAGES[full]:
            raise SystemExit(f"{url} has the SHA-256 {digest}, not the one that is pinned.")
        self._files = tarfile.open(fileobj=io.BytesIO(content))

    def names(self) -> list[str]:
        return self._files.getnames()

    def read(self, name: str) -> bytes:
        file = self._files.extractfile(f"package/{name}")
        assert file is not None
        return file.read()

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))


def code_point(text: str) -> str:
    """In capitals and without the selector of the colourful form: 1f3f3-fe0f becomes 1F3F3."""
    return "-".join(part for part in text.upper().split("-") if part != "FE0F")


def dashed(label: str) -> str:
    """A label as icon sets write it."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    plain = plain.replace("&", " and ").replace("#", " hash ").replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def squashed(label: str) -> str:
    return re.sub("[^a-z0-9]", "", label)


def read_kinds(emojibase: Package) -> tuple[dict[str, Kind], dict[str, str]]:
    """The kind of every code point that is in a class, and the code point of every label."""
    subgroups = {s["order"]: s["key"] for s in emojibase.json("en/messages.json")["subgroups"]}
    class_of = {subgroup: name for name, subgroups in CLASSES.items() for subgroup in subgroups}
    kinds, by_label = {}, {}
    for entry in emojibase.json("en/data.json"):
        point = code_point(entry["hexcode"])
        by_label.setdefault(dashed(entry["label"]), point)
        class_name = class_of.get(subgroups.get(entry.get("subgroup"), ""))
        if class_name is not None and point not in NOT_OBJECTS:
            kinds[point] = Kind(entry["label"], class_name)
    return kinds, by_label


def name_code_points(
    by_label: Mapping[str, str], kinds: Mapping[str, Kind], sets: list[Package]
) -> dict[str, str]:
    """Code points by the names of icons, for the set that has only names."""
    found = dict(by_label)
    for icon_set in sets:
        by_name: dict[str, str] = {}
        for point, name in icon_set.json("chars.json").items():
            by_name.setdefault(name, code_point(point))
        for name, point in by_name.items():
            found.setdefault(name, point)
        for alias, target in icon_set.json("icons.json").get("aliases", {}).items():
            if target["parent"] in by_name:
                found.setdefault(alias, by_name[target["parent"]])
    spelled: dict[str, str] = {}
    for point in kinds:
        if "-" not in point and (name := unicodedata.name(chr(int(point, 16)), "")):
            spelled.setdefault(squashed(name.lower()), point)
    for name, point in found.items():
        spelled.setdefault(name.replace("-", ""), point)
    return spelled | found


def drawings(package: Package, points: Mapping[str, str]) -> dict[str, bytes]:
    """Code point to SVG."""
    icons = package.json("icons.json")
    chars = package.json("chars.json")
    names = {code_point(point): name for point, name in chars.items()}
    if not names:
        for name in [*icons["icons"], *icons.get("aliases", {})]:
            if point := points.get(name) or points.get(squashed(name)):
                names.setdefault(point, name)
    found = {}
    for point, name in names.items():
        while name in icons.get("aliases", {}) and name not in icons["icons"]:
            name = icons["aliases"][name]["parent"]
        if name in icons["icons"]:
            found[point] = svg(icons["icons"][name], icons)
    return found


def svg(icon: Mapping[str, Any], icons: Mapping[str, Any]) -> bytes:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    body = icon["body"].replace("currentColor", "#222")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    ).encode()


def pictures(style: str, points: Mapping[str, str]) -> Iterator[tuple[str, Image.Image]]:
    """Code points and pictures with a transparent background, of any size."""
    package = Package(STYLES[style])
    if style == "fluent-3d":
        for name in package.names():
            if name.endswith(".webp"):
                content = package.read(name.removeprefix("package/"))
                point = code_point(name.rpartition("/")[2].removesuffix(".webp"))
                yield point, Image.open(io.BytesIO(content)).convert("RGBA")
        return
    for point, text in drawings(package, points).items():
        content = resvg_py.svg_to_bytes(svg_string=text.decode(), width=SIZE, height=SIZE)
        yield point, Image.open(io.BytesIO(bytes(content))).convert("RGBA")


def encoded(picture: Image.Image) -> bytes:
    """On white, as lossless WebP."""
    if picture.size != (SIZE, SIZE):
        picture = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    file = io.BytesIO()
    white.convert("RGB").save(file, "webp", lossless=True, method=6)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the zip file to write")
    target = parser.parse_args().file
    kinds, by_label = read_kinds(Package("emojibase-data"))
    sets = [Package(f"@iconify-json/{name}") for name in NAMED]
    points = name_code_points(by_label, kinds, sets)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["code_point", "class", "label"])
    writer.writerows([point, kind.class_name, kind.label] for point, kind in sorted(kinds.items()))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        # neither times nor compression, which differ between machines
        archive.writestr(zipfile.ZipInfo("objects.csv"), table.getvalue())
        for style in STYLES:
            found = {point: encoded(p) for point, p in pictures(style, points) if point in kinds}
            for point, content in sorted(found.items()):
                archive.writestr(zipfile.ZipInfo(f"{style}/{point}.webp"), content)
            print(f"{style}: {len(found)} pictures")


if __name__ == "__main__":
    main()
