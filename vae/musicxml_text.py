"""MusicXML -> MusicXML that music21 reads rightly: without cue notes, with ties where they are only drawn."""

import contextlib
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def plain(path: Path) -> str:
    """The text of a score, compressed or not.

    Raises:
        Exception: almost any, if it is no such file.
    """
    root = ElementTree.fromstring(_data(path))
    for bar in root.iter("measure"):
        for note in bar.findall("note"):
            if note.find("cue") is not None:
                _silence(bar, note)
            elif note.find("tie") is None:
                _tie(note)
    for tempo in root.iter("per-minute"):
        numbers = [float(number) for number in _NUMBER.findall(tempo.text or "")]  # such as c. 60, or 60-66
        tempo.text = f"{sum(numbers) / len(numbers):g}" if numbers else ""
    return ElementTree.tostring(root, encoding="unicode")


def _data(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(_score_in(archive))


def _score_in(archive: zipfile.ZipFile) -> str:
    """The name of the score in a compressed file: what its container names first, or else what looks like one."""
    names = archive.namelist()
    found: list[str | None] = []
    with contextlib.suppress(KeyError, ElementTree.ParseError):  # there is none, or a broken one
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        found += [file.get("full-path") for file in container.findall(".//{*}rootfile")]
    others = [name for name in names if not name.startswith(("META-INF/", "__MACOSX/"))]
    found += [name for name in others if name.lower().endswith((".xml", ".musicxml"))]
    return next(name for name in found if name in names)


def _silence(bar: "ElementTree.Element[str]", note: "ElementTree.Element[str]") -> None:
    """Makes a cue note a rest; what takes no time of its own goes."""
    if note.find("chord") is not None or note.find("grace") is not None:
        bar.remove(note)
        return
    for pitch in note.findall("pitch"):
        pitch.clear()
        pitch.tag = "rest"
    for tie in note.findall("tie"):
        note.remove(tie)


def _tie(note: "ElementTree.Element[str]") -> None:
    for tied in note.findall("notations/tied"):
        for kind in ("stop", "start"):
            if tied.get("type") in (kind, "continue"):
                ElementTree.SubElement(note, "tie", type=kind)
