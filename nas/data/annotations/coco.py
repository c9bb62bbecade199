"""Boxes in COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.annotations.boxes import BoxedFile, boxed_data
from nas.data.folders import folder_of
from nas.data.problems import Problems
from nas.data.sources import DATA_SOURCES, RawData
from search_spaces.errors import EnvironmentProblem

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

_PLACES = {
    "train": (
        "train.json", "annotations/instances_train2017.json", "annotations/instances_train.json",
        "annotations/train.json", "train/_annotations.coco.json", "annotations.json",
        "_annotations.coco.json",
    ),
    "validation": (
        "val.json", "validation.json", "annotations/instances_val2017.json",
        "annotations/instances_val.json", "annotations/val.json", "valid/_annotations.coco.json",
    ),
    "test": ("test.json", "annotations/instances_test.json", "annotations/test.json",
             "test/_annotations.coco.json"),
}  # fmt: skip


@DATA_SOURCES.register("coco_json")
def coco_json(
    config: DataConfig,
    *,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    images: str | None = None,
    empty: bool = False,
) -> RawData:
    """Return images with boxes described by COCO's JSON (Lin et al., ECCV 2014).

    Boxes are ``[left, top, width, height]`` in pixels; ``iscrowd`` boxes are neither to be found
    nor wrong to be found. A ``file_name`` is looked for in ``images``, beside the JSON file, in
    ``path``, and in folders ``images``, ``train2017`` and ``val2017`` there.

    Args:
        config: ``path`` is the folder of the data.
        train, validation, test: JSON files relative to ``path``; by default those of COCO's own
            layout (``annotations/instances_train2017.json``), of exports with a folder a part
            (``train/_annotations.coco.json``), ``train.json`` or ``annotations.json``.
        images: folder of the images, relative to ``path``.
        empty: images without a box are background; otherwise they are mistakes.

    Raises:
        InputError: mistakes in the files, all at once, each with its file and record.
        EnvironmentProblem: a file is not there.
    """
    root = folder_of(config)
    given = {"train": train, "validation": validation, "test": test}
    problems = Problems(root)
    parts: dict[str, list[BoxedFile]] = {}
    names: dict[int, str] = {}
    for part, name in given.items():
        path = _file(root, part, name)
        if path is None:
            continue
        content = _read(path, problems)
        if content is None:
            continue
        categories = _categories(path, content, problems)
        if part == "train":
            names = categories
        numbers = {name: i for i, name in enumerate(names.values())}
        for key, name in categories.items():
            if name not in numbers:
                problems.add(path, f"category {name!r} (id {key}) is not in the training file")
        parts[part] = _images(root, path, content, images, categories, numbers, problems)
    if "train" not in parts and not problems:
        raise EnvironmentProblem(
            f"{root}: none of {', '.join(_PLACES['train'])} is there; name the file with "
            "data.options: {train: FILE.json}"
        )
    return boxed_data(parts, tuple(names.values()), config, problems, origin=str(root), empty=empty)


def _file(root: Path, part: str, name: str | None) -> Path | None:
    if name is not None:
        if not (root / name).is_file():
            raise EnvironmentProblem(f"data.options.{part}: {root / name} is not there")
        return root / name
    return next((root / place for place in _PLACES[part] if (root / place).is_file()), None)


def _read(path: Path, problems: Problems) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        problems.add(path, "is no UTF-8 text")
        return None
    except json.JSONDecodeError as error:
        problems.add(path, f"is no JSON: {error.msg}", line=error.lineno)
        return None
    if not isinstance(content, dict):
        problems.add(path, "holds no mapping with images, annotations and categories")
        return None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            problems.add(path, f"has no list {key!r}")
            return None
    return content


def _categories(path: Path, content: Mapping[str, Any], problems: Problems) -> dict[int, str]:
    found: dict[int, str] = {}
    for i, entry in enumerate(content["categories"]):
        at = f"{path}, categories[{i}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            problems.add(at, "has no whole number 'id'")
        elif not isinstance(entry.get("name"), str) or not entry["name"]:
            problems.add(at, "has no 'name'")
        elif entry["id"] in found:
            problems.add(at, f"has the id {entry['id']} of {found[entry['id']]!r}")
        else:
            found[entry["id"]] = entry["name"]
    # Exports often begin with a category that stands above the others and has no box.
    used = {a.get("category_id") for a in content["annotations"] if isinstance(a, dict)}
    above = {e.get("supercategory") for e in content["categories"] if isinstance(e, dict)}
    return {k: n for k, n in sorted(found.items()) if k in used or n not in above}


def _images(
    root: Path,
    path: Path,
    content: Mapping[str, Any],
    folder: str | None,
    categories: Mapping[int, str],
    numbers: Mapping[str, int],
    problems: Problems,
) -> list[BoxedFile]:
    files: dict[Any, BoxedFile] = {}
    folders = [root / folder] if folder else []
    folders += [path.parent, root, root / "images", root / "train2017", root / "val2017"]
    for i, entry in enumerate(content["images"]):
        at = f"{path}, images[{i}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
            problems.add(at, "has no 'file_name'")
            continue
        size = entry.get("width"), entry.get("height")
        if not all(isinstance(v, int) and v > 0 for v in size):
            problems.add(at, f"has no 'width' and 'height' above 0 ({size[0]} x {size[1]})")
            continue
        if entry.get("id") in files:
            problems.add(at, f"has the id {entry.get('id')!r} of another image")
            continue
        name = entry["file_name"]
        place = next((f / name for f in folders if (f / name).is_file()), folders[0] / name)
        files[entry.get("id")] = BoxedFile(place, f"{at} (id {entry.get('id')})", size)  # type: ignore[arg-type]
    for i, entry in enumerate(content["annotations"]):
        at = f"{path}, annotations[{i}]"
        if not isinstance(entry, dict):
            problems.add(at, "is no mapping")
            continue
        if "id" in entry:
            at += f" (id {entry['id']})"
        file = files.get(entry.get("image_id"))
        if file is None:
            problems.add(at, f"names the image {entry.get('image_id')!r}, which is not there")
            continue
        file.described += 1
        kind = entry.get("category_id")
        number = numbers.get(categories.get(kind, ""))  # type: ignore[arg-type]
        if number is None:
            problems.add(
                at, f"names the category {kind!r}, which is unknown (known: "
                f"{', '.join(f'{k} {n}' for k, n in categories.items())})",
            )  # fmt: skip
        box = entry.get("bbox")
        if not (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
        ):
            problems.add(at, f"has no 'bbox' of four numbers ({box!r})")
            continue
        left, top, width, height = map(float, box)
        assert file.size is not None
        file.add(
            problems, number, (left, top, left + width, top + height), place=at,
            sides=(float(file.size[0]), float(file.size[1])), ignored=bool(entry.get("iscrowd")),
        )  # fmt: skip
    return list(files.values())
