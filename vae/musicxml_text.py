"""MusicXML -> MusicXML that music21 reads rightly: without cue notes, with ties where they are only drawn."""

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
        names = [name for name in archive.namelist() if not name.startswith("META-INF/")]
        return archive.read(next(name for name in names if name.endswith((".xml", ".musicxml"))))


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
