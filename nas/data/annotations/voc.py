"""Boxes in Pascal VOC's XML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from nas.data.annotations.boxes import BoxedFile, boxed_data
from nas.data.annotations.parts import listed_classes
from nas.data.folders import folder_of
from nas.data.problems import Problems, class_names
from nas.data.sources import DATA_SOURCES, IMAGE_SUFFIXES, RawData
from search_spaces.errors import EnvironmentProblem

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

_LISTS = {"train": ("train", "trainval"), "validation": ("val", "validation"), "test": ("test",)}


@DATA_SOURCES.register("pascal_voc")
def pascal_voc(
    config: DataConfig, *, names: Sequence[str] | None = None, empty: bool = False
) -> RawData:
    """Return images described by Pascal VOC's XML files (Everingham et al., IJCV 2010).

    ``Annotations/*.xml`` beside ``JPEGImages`` with ``ImageSets/Main/train.txt`` and so on; or
    XML files beside the images, in ``train``, ``valid`` and ``test`` or all in one folder.
    ``difficult`` objects are neither to be found nor wrong to be found. Corners count pixels
    from 1, as in VOC.

    Args:
        config: ``path`` is the folder of the data.
        names: of the classes, in order; by default those of ``classes.txt``, a line each, or all
            that occur, by letter.
        empty: images without a box are background; otherwise they are mistakes.

    Raises:
        InputError: mistakes in the files, all at once, each with its file and line.
        EnvironmentProblem: there are no XML files.
    """
    root = folder_of(config)
    problems = Problems(root)
    found = {part: [_read(path, problems) for path in files]
             for part, files in _files(root, problems).items()}  # fmt: skip
    if not found.get("train"):
        raise EnvironmentProblem(f"{root}: there are no XML files in Annotations, train or here")
    objects = [o for part in found.values() for image in part if image for o in image.objects]
    told = list(names) if names is not None else listed_classes(root)
    classes = tuple(told) if told else class_names([o.name for o in objects])
    index = {name: i for i, name in enumerate(classes)}
    parts = {
        part: [_boxed(root, image, index, problems) for image in images if image is not None]
        for part, images in found.items()
    }
    return boxed_data(parts, classes, config, problems, origin=str(root), empty=empty)


class _Object:
    def __init__(self, line: int) -> None:
        self.line = line
        self.name = ""
        self.difficult = False
        self.corners: dict[str, str] = {}


class _Image:
    """What one XML file says; lines are kept, so that mistakes can be found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_name = ""
        self.size: dict[str, str] = {}
        self.objects: list[_Object] = []
        self._stack: list[str] = []
        self._text = ""
        self._parser = expat.ParserCreate()
        # Annotations need no entities, and those of strangers can unpack to gigabytes.
        self._parser.EntityDeclHandler = self._entity
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.Parse(path.read_bytes(), True)

    def _entity(self, *arguments: object) -> None:
        raise ValueError("it declares entities, which annotations do not need")

    def _start(self, tag: str, attributes: object) -> None:
        self._stack.append(tag)
        self._text = ""
        if self._stack == ["annotation", "object"]:
            self.objects.append(_Object(self._parser.CurrentLineNumber))

    def _characters(self, text: str) -> None:
        self._text += text

    def _end(self, tag: str) -> None:
        text, place = self._text.strip(), self._stack[1:]
        if place == ["filename"]:
            self.file_name = text
        elif place[:1] == ["size"] and len(place) == 2:
            self.size[tag] = text
        elif place == ["object", "name"]:
            self.objects[-1].name = text
        elif place == ["object", "difficult"]:
            self.objects[-1].difficult = text == "1"
        elif place[:2] == ["object", "bndbox"] and len(place) == 3:
            self.objects[-1].corners[tag] = text
        self._stack.pop()
        self._text = ""


def _read(path: Path, problems: Problems) -> _Image | None:
    try:
        return _Image(path)
    except expat.ExpatError as error:
        problems.add(path, f"is no XML: {expat.ErrorString(error.code)}", line=error.lineno)
    except ValueError as error:
        problems.add(path, f"cannot be read: {error}")
    except OSError as error:
        problems.add(path, f"cannot be read: {error.strerror}")
    return None


def _files(root: Path, problems: Problems) -> dict[str, list[Path]]:
    folder = root / "Annotations"
    if not folder.is_dir():
        parts = {
            part: sorted((root / word).glob("*.xml"))
            for part, words in (("train", ("train",)), ("validation", ("valid", "val")),
                                ("test", ("test",)))
            for word in words
            if (root / word).is_dir()
        }  # fmt: skip
        return parts or {"train": sorted(root.glob("*.xml"))}
    found: dict[str, list[Path]] = {}
    for part, words in _LISTS.items():
        lists = [root / "ImageSets" / "Main" / f"{word}.txt" for word in words]
        listed = next((path for path in lists if path.is_file()), None)
        if listed is None:
            continue
        found[part] = []
        for number, line in enumerate(listed.read_text("utf-8").splitlines(), start=1):
            if not line.split():
                continue
            path = folder / f"{line.split()[0]}.xml"
            if path.is_file():
                found[part].append(path)
            else:
                problems.add(listed, f"{path} is not there", line=number)
    return found or {"train": sorted(folder.glob("*.xml"))}


def _boxed(root: Path, image: _Image, index: dict[str, int], problems: Problems) -> BoxedFile:
    path = _picture(root, image)
    size = _numbers(image.size, ("width", "height"))
    if size is None or min(size) < 1:
        problems.add(image.path, "has no size with a width and a height above 0")
        return BoxedFile(path, str(image.path), None, [(0.0,) * 6])
    file = BoxedFile(path, str(image.path), (int(size[0]), int(size[1])))
    file.described = len(image.objects)
    for item in image.objects:
        number = index.get(item.name)
        if number is None:
            problems.add(
                image.path,
                f"class {item.name!r} is unknown (known: {', '.join(index)})",
                line=item.line,
            )
        corners = _numbers(item.corners, ("xmin", "ymin", "xmax", "ymax"))
        if corners is None:
            problems.add(image.path, "the object has no bndbox of four numbers", line=item.line)
            continue
        left, top, right, bottom = corners
        file.add(
            problems, number, (left - 1, top - 1, right, bottom), place=str(image.path),
            line=item.line, sides=(size[0], size[1]), ignored=item.difficult,
        )  # fmt: skip
    return file


def _picture(root: Path, image: _Image) -> Path:
    name = image.file_name or image.path.stem
    folders = [root / "JPEGImages", image.path.parent, root / "images", root]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
        for suffix in sorted(IMAGE_SUFFIXES):
            if (folder / image.path.stem).with_suffix(suffix).is_file():
                return (folder / image.path.stem).with_suffix(suffix)
    return folders[0] / name if folders[0].is_dir() else image.path.parent / name


def _numbers(texts: dict[str, str], keys: Sequence[str]) -> list[float] | None:
    try:
        return [float(texts[key]) for key in keys]
    except (KeyError, ValueError):
        return None
