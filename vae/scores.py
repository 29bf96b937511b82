"""Scores (MusicXML and ABC) -> songs, read by music21.

Ties are merged, grace notes, cue notes, chord symbols and percussion left out, repeats not expanded.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vae.abc_text import tunes
from vae.encoding import DEFAULT_TEMPO, Song
from vae.grid import UnreadableFileError, commonest_metre, median_tempo, parsing, sane_tempo, song_of, songs_of
from vae.musicxml_text import plain

_WRONG = "not a score"
VOICES = ("soprano", "alto", "tenor", "bass")


def read_score(path: Path, steps_per_beat: int, voices: bool = False) -> list[Song | str]:
    """The songs of a score; an ABC file may hold several, of which some can't be read, and why.

    Args:
        path: the file.
        steps_per_beat: the grid.
        voices: whether the four voices are all that counts of a score that has them, and instruments that double them.

    Raises:
        UnreadableFileError: music21 cannot read it, or it has no notes for a piano.
    """

    def read(name: str, parse: Callable[[], Any]) -> Song:
        return _song(path, name, parse(), steps_per_beat, voices)

    with warnings.catch_warnings(), parsing(path, _WRONG):
        warnings.simplefilter("ignore")  # music21 repairs what it warns of
        pieces = _pieces(path)
        names = [path.stem] if len(pieces) == 1 else [f"{path.stem} {number}" for number in range(1, len(pieces) + 1)]
        songs = songs_of(path, _WRONG, read, zip(names, pieces, strict=True))
    if not songs:
        raise UnreadableFileError(path, f"{_WRONG}: it holds no music")
    return songs


def _pieces(path: Path) -> list[Callable[[], Any]]:
    """What parses each piece of a file, so that one that can't be parsed takes none with it."""
    from music21 import converter  # here, for it takes long to import and a machine that trains has no readers

    if path.suffix.lower() != ".abc":
        # Not given the path, it keeps no cache of pickles, which would fill the temporary folder.
        return [lambda: converter.parseData(plain(path), format="musicxml")]
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # which old tune books are in
    return [partial(_tune, voices) for voices in tunes(text)]


def _tune(voices: list[str]) -> Any:
    from music21 import converter, stream

    score = stream.Score()
    for voice in voices:
        for part in converter.parseData(voice, format="abc").parts:
            score.insert(0, part)
    return score


def _song(path: Path, name: str, score: Any, steps_per_beat: int, voices: bool) -> Song:
    from music21 import meter, tempo

    score.toSoundingPitch(inPlace=True)
    _align(score)
    parts = [part.flatten() for part in (voices and _voices(score)) or _pitched_parts(score)]
    end = float(score.highestTime)
    tempos = [
        (float(mark.offset), sane_tempo(mark.getQuarterBPM() or 0))
        for mark in score.flatten().getElementsByClass(tempo.MetronomeMark)  # a part left out may have them
    ]
    metres = [
        (float(sign.offset), (sign.numerator, sign.denominator))
        for part in parts[:1]
        for sign in part.getElementsByClass(meter.TimeSignature)
    ]
    metre, begins = commonest_metre(metres, end)
    notes = _merged(note for part in parts for note in _notes(part))
    return song_of(
        path,
        name,
        np.array(notes, np.float64).reshape(-1, 3),
        steps_per_beat,
        tempo=median_tempo([(0, DEFAULT_TEMPO), *tempos], end),
        metre=metre,
        bar_line=_bar_line(score, begins),
    )


def _align(score: Any) -> None:
    """Lets the bars of all parts begin together: after one that is not well filled, a part runs ahead or late."""
    parts = list(score.parts)
    bars = [_bars(part) for part in parts]
    starts = [[Fraction(bar.offset) for bar in of_part] for of_part in bars]
    if len(set(map(len, starts))) != 1 or all(own == starts[0] for own in starts):
        return
    common = [Fraction(0)]
    for number, ends in enumerate(list(zip(*starts, strict=True))[1:]):
        lengths = [end - own[number] for own, end in zip(starts, ends, strict=True)]
        common.append(common[-1] + _common_length(lengths, bars[0][number], is_first=number == 0))
    for part, of_part, own in zip(parts, bars, starts, strict=True):
        for bar, start in zip(of_part, common, strict=True):
            part.setElementOffset(bar, start)
        part.setElementOffset(of_part[0], max(common[1] - own[1], Fraction(0)))  # an upbeat ends with the bar


def _common_length(lengths: list[Fraction], bar: Any, is_first: bool) -> Fraction:
    """How long a bar is, of these lengths in several parts: by votes, then by the metre, then the longest."""
    if len(set(lengths)) == 1:
        return lengths[0]
    full = Fraction(bar.barDuration.quarterLength)
    if is_first:  # it may be an upbeat, which some parts fill with rests
        return max((length for length in lengths if length <= full), default=full)
    votes = Counter(lengths)
    return max(votes, key=lambda length: (votes[length], length == full, length))


def _bars(part: Any) -> list[Any]:
    from music21 import stream

    return list(part.getElementsByClass(stream.Measure))


def _bar_line(score: Any, begins: float) -> float:
    """Where a bar of a metre begins, in beats, which itself begins there; the first bar may be an upbeat."""
    bars = _bars(score.parts[0]) if score.parts else []
    return max(begins, float(bars[1].offset)) if len(bars) > 1 else begins


def _voices(score: Any) -> list[Any]:
    """The four voices of a score with more parts, such as a cantata's, where instruments double them; or none."""
    parts = list(score.parts)
    names = [(part.partName or "").lower() for part in parts] if len(parts) > 4 else []
    voices = [next((i for i, name in enumerate(names) if name.startswith(voice)), None) for voice in VOICES]
    return [] if None in voices else [parts[i] for i in voices if i is not None]


def _pitched_parts(score: Any) -> list[Any]:
    """All parts but percussion."""
    from music21 import instrument

    parts = list(score.parts) or [score]
    players = [part.getInstrument(returnDefault=True) for part in parts]
    return [
        part
        for part, player in zip(parts, players, strict=True)
        if not isinstance(player, instrument.UnpitchedPercussion) and player.midiChannel != 9
    ]


def _notes(part: Any) -> Iterator[tuple[int, Fraction, Fraction, bool]]:
    """Pitch, start, end in beats, and whether a tie leads into it; by start."""
    from music21 import harmony, note

    for element in part.notes:
        if element.duration.isGrace or isinstance(element, harmony.Harmony):
            continue
        start = Fraction(element.offset)
        end = start + Fraction(element.quarterLength)
        for single in element.notes if element.isChord else [element]:
            if isinstance(single, note.Note):
                tied = single.tie is not None and single.tie.type in ("stop", "continue")
                yield single.pitch.midi, start, end, tied


def _merged(notes: Iterable[tuple[int, Fraction, Fraction, bool]]) -> list[tuple[int, Fraction, Fraction]]:
    """Tied notes as one, also those that a tie holds across the staves of a piano, which are parts here."""
    merged: list[tuple[int, Fraction, Fraction]] = []
    ended: dict[tuple[int, Fraction], list[int]] = {}  # pitch, end -> where such notes stand
    for pitch, start, end, tied in sorted(notes, key=lambda note: note[1]):
        if tied and ended.get((pitch, start)):
            index = ended[pitch, start].pop()
            merged[index] = (pitch, merged[index][1], end)
        else:
            index = len(merged)
            merged.append((pitch, start, end))
        ended.setdefault((pitch, end), []).append(index)
    return merged


def chorales() -> list[Path]:
    """The files of Bach's four-part chorales in the installed music21."""
    from music21 import corpus

    paths = []
    for name in corpus.chorales.Iterator(returnType="filename"):
        found = corpus.getWork(name, fileExtensions=(".mxl", ".xml"))
        works = [Path(work) for work in (found if isinstance(found, list) else [found])]
        # A name also finds the works that it begins (bwv244.3 finds bwv244.32): the shortest is meant.
        paths.append(min(works, key=lambda work: (len(work.name), work.name)))
    return paths
