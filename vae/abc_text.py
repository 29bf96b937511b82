"""ABC, which holds books of tunes -> every voice of every tune, in the plain ABC that music21 reads rightly.

It follows the ABC standard 2.1, see https://abcnotation.com/wiki/abc:standard:v2.1. Only notes, rests, ties, tuplets,
bars, key, metre, unit length and tempo are left. Left out are overlays (&), macros, accidentals that K: adds to a
mode, and the octaves of clefs; music21 leaves out ties between chords.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

_FIELD = re.compile(r"([A-Za-z+]):(?![:|])(.*)")
_INLINE = re.compile(r"\[([A-Za-z]):([^\]]*)\]")
_BLOCK = re.compile(r"^%%begin(\w+).*?^%%end\1.*?$", re.MULTILINE | re.DOTALL)
_ASIDE = re.compile(
    r'"[^"]*"'  # chord symbols and annotations
    r"|(?<!\\)%.*"  # comments
    r"|\{[^}]*\}"  # grace notes
    r"|![^!|\s]+!"  # decorations
    r"|\+(?![a-gA-G]+\+)[a-z.<>()]+\+"  # those of old; +CEG+ is an old chord
)
_SIGN = re.compile(r'y[\d/]*|[H-WYh-w~.`$\\!"]')  # spaces, decorations of one letter, ends of lines
_NOTE = re.compile(r"\||::|([_^=]*)([A-Ga-g])([,']*)([\d/]*-)?")
_KEY = re.compile(r"([A-G])([#b]?)(?:\s*(maj|min|ion|aeo|dor|phr|lyd|mix|loc|m)[a-z]*)?(?![a-z=#])", re.IGNORECASE)
_MODES = {"ion": 0, "maj": 0, "mix": -1, "dor": -2, "aeo": -3, "min": -3, "m": -3, "phr": -4, "loc": -5, "lyd": 1}
"""Sharps more than in the major key of the same tonic."""
_FIFTHS = "FCGDAEB"


def tunes(text: str) -> list[list[str]]:
    """The tunes of a book, each as its voices; a voice is a text that music21 reads by itself.

    A tune begins at `X:` and ends at an empty line. What stands before the first holds for all. A text without `X:`
    is one tune if it has a key; else it is no ABC, and has none.
    """
    text = _BLOCK.sub("", re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff")))
    head, *found = re.split(r"^(?=X:)", text, flags=re.MULTILINE)
    if re.search(r"^K:", head, re.MULTILINE):
        head, found = "", [head, *found]
    shared = {letter: value for letter, value in _elements(head) if value and letter in _MEANING}
    return [_voices(re.split(r"\n[ \t]*\n", tune.strip("\n"))[0], shared) for tune in found]


@dataclass
class _Voice:
    """One voice of a tune as far as it is read."""

    fields: dict[str, str]  # that hold now
    lines: list[str] = field(default_factory=list)
    altered: dict[str, str] = field(default_factory=dict)  # accidentals in this bar, by letter, for all octaves
    tied: dict[str, str] = field(default_factory=dict)  # those of notes that a tie holds, by pitch

    def __post_init__(self) -> None:
        metre = self.fields.get("M")
        self.fields = {"L": "1/16" if metre and Fraction(metre) < Fraction(3, 4) else "1/8", "K": "C"} | self.fields
        self.lines = [f"{letter}:{self.fields[letter]}" for letter in "MLQK" if letter in self.fields]

    def change(self, letter: str, value: str) -> None:
        self.fields[letter] = value
        self.lines.append(f"{letter}:{value}")

    def play(self, music: str) -> None:
        bar = Fraction(self.fields.get("M", "4/4")) / Fraction(self.fields["L"])
        music = re.sub(r"[XZ](\d*)", lambda rest: "|".join([f"z{bar}"] * int(rest[1][:3] or 1)), music)
        self.lines.append(_NOTE.sub(self._spelled, music))

    def _spelled(self, found: re.Match[str]) -> str:
        """A note with its accidental, which lasts to the end of the bar, or of the tie."""
        accidental, letter, octave, tie = found.groups()
        if letter is None:
            self.altered.clear()
            return found[0]
        if accidental:
            self.altered[letter.upper()] = accidental
        pitch = letter + octave
        held = self.tied.pop(pitch, "")
        accidental = self.altered.get(letter.upper(), held)
        if tie:
            self.tied[pitch] = accidental
        return accidental + pitch + (tie or "")


def _voices(tune: str, shared: dict[str, str]) -> list[str]:
    fields = dict(shared)
    voices: dict[str, _Voice] = {}
    name, in_header = "1", re.search(r"^K:", tune, re.MULTILINE) is not None
    for letter, value in _elements(tune):
        in_header &= letter != "K"
        if letter in ("", "V") and not in_header:
            name = value.split()[0] if letter and value else name
            voice = voices.setdefault(name, _Voice(fields))
            if not letter:
                voice.play(value)
        elif value and letter in _MEANING and voices:
            voices[name].change(letter, value)
        elif value and letter in _MEANING:
            fields[letter] = value
    return ["\n".join(voice.lines) + "\n" for voice in voices.values()]


def _elements(text: str) -> Iterator[tuple[str, str]]:
    """Fields, by letter, and what they mean, if anything, and music, of no letter, in order."""
    for line in text.split("\n"):
        stated = _FIELD.match(line)
        # Music, and by turns letter and value of a field, and music.
        parts = ["", *stated.groups(), ""] if stated else _INLINE.split(_ASIDE.sub("", line))
        for music, letter, value in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
            if plain := _plain(music):
                yield "", plain
            if letter:
                yield letter, _MEANING.get(letter, str.strip)(_ASIDE.sub("", value))


def _plain(music: str) -> str:
    """Music without all that makes no sound; a letter and a colon, such as F::, would be read as a field."""
    sounding = re.sub(r"&[^|]*", "", _SIGN.sub("", music)).replace("x", "z")
    return re.sub(r"(?<=[A-Za-z]):", " :", sounding).strip()


def _metre(value: str) -> str:
    """As a fraction; empty where it is free, or none."""
    value = re.sub(r"\s", "", value)
    found = re.match(r"\(?(\d{1,3}(?:\+\d{1,3})*)\)?/(1|2|4|8|16|32|64)\b", {"C": "4/4", "C|": "2/2"}.get(value, value))
    beats = sum(map(int, found[1].split("+"))) if found else 0
    return f"{beats}/{found[2]}" if found and beats else ""


def _length(value: str) -> str:
    found = re.match(r"\s*([1-9]\d{0,3})(?:\s*/\s*([1-9]\d{0,3}))?", value)
    return f"{found[1]}/{found[2] or 1}" if found else ""


def _tempo(value: str) -> str:
    found = re.fullmatch(r"((?:\d+/[1-9]\d*\s+)*\d+/[1-9]\d*)\s*=\s*(\d+).*|(\d+)", value.strip())
    return (found[3] or f"{' '.join(found[1].split())}={found[2]}") if found else ""


def _key(value: str) -> str:
    """The major key of the same sharps, without a clef, for some of which music21 transposes."""
    if value.strip().lower() in ("none", "hp"):
        return "D" if value.strip().lower() == "hp" else "C"  # highland pipes have F and C sharp
    found = _KEY.match(value.strip())
    if not found:
        return ""
    place = _FIFTHS.index(found[1].upper()) + 7 * {"": 0, "#": 1, "b": -1}[found[2].lower()]
    place += _MODES[(found[3] or "maj").lower()]
    return _FIFTHS[place % 7] + ("#" if place >= 7 else "b" if place < 0 else "")


_MEANING: dict[str, Callable[[str], str]] = {"M": _metre, "L": _length, "Q": _tempo, "K": _key}
"""What is left of a field, empty if it says nothing."""
