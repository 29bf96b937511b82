"""Data that are arrays already: piano rolls in JSON, `.npy` and `.npz`."""

import json
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.encoding import DEFAULT_TEMPO, FEATURES, HIGHEST_PITCH, LOWEST_PITCH, PITCHES, music_steps
from vae.errors import UserError
from vae.splitting import SPLITS, deal, digest

JSON_TEMPO = 100.0
"""The files state none; at this pace quarter-note steps of chorales sound well."""

# What numpy raises on files that are damaged, or not its own.
_BROKEN = (
    *(OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass(frozen=True)
class Table:
    """Encoded songs end to end, each with its side."""

    encoding: str
    values: npt.NDArray[np.uint8] | npt.NDArray[np.float32]  # [steps, D]
    lengths: npt.NDArray[np.int64]  # [songs], steps
    sides: npt.NDArray[np.int64]  # [songs], index into `SPLITS`
    tempo: float
    window: int | None = None  # steps; 16 beats if None
    steps_per_bar: int | None = None
    beat_type: int = 4
    report: tuple[str, ...] = ()  # what reading found


def read_json(path: Path) -> Table:
    """Piano rolls: `{"train": songs, "valid": songs, "test": songs}`, their split kept.

    A song is a list of steps, a step the list of the pitches that sound. Songs without steps are dropped.

    Raises:
        UserError: the file holds anything else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}). Pass {_JSON_FORM}.") from error
    if not isinstance(content, dict) or set(content) != set(SPLITS):
        found = f"keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(f"{path}: must be {_JSON_FORM}; found {found}. Name its splits so.")
    songs: list[npt.NDArray[np.uint8]] = []
    counts = []
    empty = 0
    for split in SPLITS:
        rolls = _rolls(path, split, content[split])
        kept = [roll for roll in rolls if len(roll)]
        if not kept:
            raise UserError(f"{path}: {split} has no song with a step in it. Each split needs one.")
        empty += len(rolls) - len(kept)
        songs += kept
        counts.append(len(kept))
    lengths = np.array([len(song) for song in songs], np.int64)
    report = [f"{path.name}: {len(songs):,} songs of piano roll, {lengths.sum():,} steps"]
    report += [f"{empty} songs without steps dropped"] if empty else []
    sides = np.repeat(np.arange(len(SPLITS)), counts)
    return Table("roll", np.concatenate(songs), lengths, sides, JSON_TEMPO, report=tuple(report))


_JSON_FORM = '{"train": [song, ...], "valid": [...], "test": [...]}, a song a list of steps, a step a list of pitches'


def _rolls(path: Path, split: str, songs: Any) -> list[npt.NDArray[np.uint8]]:
    rolls = []
    for number, song in enumerate(_list(path, split, songs, "songs")):
        place = f"{split}[{number}]"
        roll = np.zeros((len(_list(path, place, song, "steps")), PITCHES), np.uint8)
        for step, pitches in enumerate(song):
            _check_step(path, f"{place}[{step}]", pitches)
            roll[step, [pitch - LOWEST_PITCH for pitch in pitches]] = 1
        rolls.append(roll)
    return rolls


def _list(path: Path, place: str, value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{path}: {place} must be a list of {what}, found {json.dumps(value)[:40]}. Mend the file.")
    return value


def _check_step(path: Path, place: str, pitches: Any) -> None:
    for pitch in _list(path, place, pitches, "pitches"):
        if type(pitch) is not int or not LOWEST_PITCH <= pitch <= HIGHEST_PITCH:
            rule = f"pitches must lie in {LOWEST_PITCH}..{HIGHEST_PITCH} (piano keys) and be whole numbers"
            raise UserError(f"{path}: {place} has pitch {json.dumps(pitch)[:40]}; {rule}. Drop or transpose it.")


def table_of(path: Path, loaded: dict[str, npt.NDArray[Any]]) -> Table:
    """Rows [N, D], a song each; or piano rolls [N, T, 88], with onsets [N, T, 176].

    Args:
        path: the file they came from, for errors.
        loaded: one array, or arrays `train`, `valid` and `test`, whose split is kept.

    Raises:
        UserError: they are anything else.
    """
    parts = _parts(path, loaded)
    for name, array in parts.items():
        _check(f"{path}: {name}" if name else f"{path}", array)
    if len({(array.ndim, array.shape[-1]) for array in parts.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in parts.items())
        raise UserError(f"{path}: splits must agree in dimensions and width, found {shapes}. Save them alike.")
    arrays = list(parts.values())
    songs = [len(array) for array in arrays]
    rolls = arrays[0].ndim == 3
    flat = [array.reshape(-1, array.shape[-1]) for array in arrays]
    values, encoding = _values(path, flat[0] if len(flat) == 1 else np.concatenate(flat), rolls)
    lengths = np.repeat(np.array([array.shape[1] if rolls else 1 for array in arrays], np.int64), songs)
    if len(arrays) == len(SPLITS):
        sides = np.repeat(np.arange(len(SPLITS)), songs)
    else:
        sides = _sides(path, values.reshape(songs[0], -1, values.shape[1]), lengths, rolls)
    report = f"{path.name}: {sum(songs):,} songs, {len(values):,} steps of {values.shape[1]} numbers, {encoding}"
    # An array [N, T, 88] is N pieces of T steps: they are windows already.
    return Table(encoding, values, lengths, sides, DEFAULT_TEMPO, window=int(lengths.max()), report=(report,))


_SAVE = "Save it with numpy.save(path, array), numbers in 2 dimensions [N, D] or 3 [N, T, 88]."


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an `.npz` by name, or the one of an `.npy` under an empty name.

    Raises:
        UserError: the file is damaged, or holds Python objects, which would run code.
    """
    try:
        with path.open("rb") as file:  # given the path, numpy leaves damaged files open
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except _BROKEN as error:
        reason = str(error).partition(". ")[0]
        raise UserError(f"{path}: must be an array of numbers; numpy says: {reason}. {_SAVE}") from error


def _parts(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The only array, or one for each split."""
    if set(SPLITS) <= set(arrays):
        return {split: arrays[split] for split in SPLITS}
    if len(arrays) != 1:
        raise UserError(f"{path}: must hold one array, or train, valid and test; found {sorted(arrays)}. Save it so.")
    return arrays


def _check(place: str, array: npt.NDArray[Any]) -> None:
    """Raises `UserError` if an array is not what `table_of` takes."""
    if array.dtype.kind not in "buif":
        raise UserError(f"{place}: must hold real numbers, found dtype {array.dtype}. {_SAVE}")
    if array.ndim not in (2, 3):
        raise UserError(f"{place}: must have 2 or 3 dimensions, found shape {array.shape}. {_SAVE}")
    if not array.size:
        raise UserError(f"{place}: must not be empty, found shape {array.shape}. {_SAVE}")
    if array.ndim == 3 and array.shape[2] not in FEATURES.values():
        rule = f"the last of 3 dimensions must be {PITCHES} keys, or {2 * PITCHES} with onsets"
        raise UserError(f"{place}: {rule}, found shape {array.shape}. Reshape it to [N, D] if it is no piano roll.")


def _values(
    path: Path, flat: npt.NDArray[Any], rolls: bool
) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.float32], str]:
    """Values as they are trained on, and their encoding."""
    if bool(((flat == 0) | (flat == 1)).all()):
        widths = {width: encoding for encoding, width in FEATURES.items()}
        return flat.astype(np.uint8), widths[flat.shape[1]] if rolls else "binary"
    if rolls:
        other = flat[(flat != 0) & (flat != 1)][0]
        raise UserError(f"{path}: a piano roll must hold only 0 and 1, found {other}. Save array > 0 instead.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused next
        values = flat.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        found = f"{flat[row, column]} in row {row}, column {column}"
        raise UserError(f"{path}: all numbers must be finite (in float32), found {found}. Drop or mend such rows.")
    return values, "real"


def _sides(path: Path, songs: npt.NDArray[Any], lengths: npt.NDArray[np.int64], rolls: bool) -> npt.NDArray[np.int64]:
    names = [digest(_from_lowest_key(song) if rolls else song) for song in songs]
    if len(set(names)) < len(SPLITS):
        rule = "3 pieces that differ, transposed or not" if rolls else "3 rows that differ"
        found = f"found {len(set(names))} among {len(names)}"
        raise UserError(f"{path}: a split needs {rule}, {found}. Pass more data.")
    return deal(names, lengths * music_steps(songs.shape[2], rolls))


def _from_lowest_key(roll: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A piece [T, D], transposed so that its lowest key is the first: of music there are often copies in all keys."""
    # The keys below it are 0 in every step, so numbers may pass from a step, or from onsets, to what is before it.
    return np.roll(roll, -int(roll[:, :PITCHES].any(axis=0).argmax()))
