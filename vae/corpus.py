"""Named corpora and user files, read into songs split by tune."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.arrays import Table, load_arrays, read_json, table_of
from vae.encoding import FEATURES, DataSpec
from vae.errors import UserError
from vae.files import cache_folder, printable, write_atomically
from vae.library import MUSIC_SUFFIXES, content_digest, music_files, read_files, skipped_line, table_of_songs
from vae.scores import chorales
from vae.splitting import SPLITS as SPLITS

BACH = "bach"
"""The corpus that goes by a name; all others are known by the place they are read from."""
READER_VERSION = 9
"""Counts up with every change of what reading gives, so that no cached corpus outlives its reader."""
FORMAT = "music-vae-sweep corpus 1"
WINDOW_BEATS = 16
_MOST_TICKS = 32_767  # of a beat in a MIDI file
_ARRAYS = (".json", ".npy", ".npz")  # of files that hold what is encoded already


@dataclass(frozen=True)
class Split:
    """Songs laid end to end."""

    values: npt.NDArray[np.uint8] | npt.NDArray[np.float32]  # [steps, D]; uint8 of 0 and 1, or float32 if real
    lengths: npt.NDArray[np.int64]  # [songs], steps of each; they sum to len(values)

    def songs(self) -> list[npt.NDArray[Any]]:
        """Each song by itself, [T, D]."""
        return list(np.split(self.values, np.cumsum(self.lengths)[:-1]))


@dataclass(frozen=True)
class Corpus:
    """Encoded music, split: what trainers and sweeps take."""

    name: str  # `bach`, or the place it was read from
    spec: DataSpec
    splits: dict[str, Split]  # by `SPLITS`
    report: tuple[str, ...]  # what reading found, a line each: files, songs, notes, steps, skipped and why
    fingerprint: str  # SHA-256 (hex) of the spec and the arrays of all splits


def load_corpus(
    data: str,
    encoding: str | None = None,
    steps_per_beat: int | None = None,
    steps_per_bar: int | None = None,
) -> Corpus:
    """Reads a corpus, once: music is cached under `$XDG_CACHE_HOME/music-vae-sweep`.

    Args:
        data: `bach`; a folder or file of music; piano rolls in `.json`; an `.npy` or `.npz` of arrays; or an
            `.npz` from `save_corpus`.
        encoding: `roll` or `roll_onset`, the default for music; arrays are what they are.
        steps_per_beat: 4 by default for music, 1 for arrays, which state no beat.
        steps_per_bar: instead of the commonest metre's.

    Raises:
        UserError: there is no such corpus, or it cannot be read so.
    """
    for name, value in (("steps per beat", steps_per_beat), ("steps per bar", steps_per_bar)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be 1 or more, found {value}. Leave it out for the default.")
        if value is not None and value > _MOST_TICKS:
            raise UserError(f"{name} must be {_MOST_TICKS:,} or less, which MIDI can tell apart, found {value}.")
    corpus = _load(data, encoding, steps_per_beat)
    if data != BACH:
        corpus = replace(corpus, name=str(Path(data).expanduser().resolve()))  # so that a checkpoint finds its data
    if steps_per_bar not in (None, corpus.spec.steps_per_bar):
        spec = replace(corpus.spec, steps_per_bar=steps_per_bar, beat_type=4)
        corpus = _corpus(corpus.name, spec, corpus.splits, corpus.report)
    return corpus


def is_to_be_encoded(data: str) -> bool:
    """Whether data are notes, which can be encoded in more ways than one, and no arrays."""
    return Path(data).suffix.lower() not in _ARRAYS


def _load(data: str, encoding: str | None, steps_per_beat: int | None) -> Corpus:
    if data == BACH:
        return _bach(_music_encoding(data, encoding), steps_per_beat or 4)
    path = existing(data, f"Pass {BACH}, a folder of music, or a .json, .npy or .npz file.")
    if path.is_dir() or path.suffix.lower() in MUSIC_SUFFIXES:
        return _folder(path, _music_encoding(data, encoding), steps_per_beat or 4)
    corpus = _file(path, steps_per_beat)
    if encoding not in (None, corpus.spec.encoding):
        found = f"the data are {corpus.spec.encoding}"
        raise UserError(f"{data}: the encoding must be that of the data, found {encoding}; {found}. Leave it out.")
    return corpus


def existing(data: str, way_out: str) -> Path:
    """The file or folder of a name.

    Raises:
        UserError: there is none; with the way out.
    """
    try:
        path = Path(data).expanduser()
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no such home, no permission, too long a name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{data}: cannot be opened: {reason}. {way_out}") from error
    if not there:
        raise UserError(f"{data}: no such file or folder. {way_out}")
    return path


def _music_encoding(data: str, encoding: str | None) -> str:
    if encoding not in (None, *FEATURES):
        raise UserError(f"{data}: the encoding of music must be {' or '.join(FEATURES)}, found {encoding}.")
    return encoding or "roll_onset"


def _file(path: Path, steps_per_beat: int | None) -> Corpus:
    """Data that are arrays already."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_table(path.name, read_json(path), steps_per_beat or 1)
    if suffix not in (".npy", ".npz"):
        known = ", ".join((*MUSIC_SUFFIXES, *_ARRAYS))
        raise UserError(f"{path}: the suffix must be one of {known}, found {suffix or 'none'}. Rename or convert it.")
    arrays = load_arrays(path)
    if "meta" not in arrays:
        return _of_table(path.name, table_of(path, arrays), steps_per_beat or 1)
    corpus = _restored(path, arrays)
    if steps_per_beat not in (None, corpus.spec.steps_per_beat):
        found = f"this file has {corpus.spec.steps_per_beat}"
        raise UserError(
            f"{path}: steps per beat cannot change any more, found {steps_per_beat}; {found}. Leave it out."
        )
    return corpus


def _bach(encoding: str, steps_per_beat: int) -> Corpus:
    try:
        source = f"music21 {version('music21')}"
    except PackageNotFoundError as error:
        way_out = "Install music21, or pass an .npz that save_corpus wrote."
        raise UserError(f"{BACH}: the chorales come with the package music21, which is missing. {way_out}") from error

    def read() -> Corpus:
        paths = chorales()
        found = f"{BACH}: {len(paths)} chorales listed"
        return _of_files(BACH, found, paths, encoding, steps_per_beat, voices=True)

    return _cached([source, encoding, steps_per_beat], read)


def _folder(path: Path, encoding: str, steps_per_beat: int) -> Corpus:
    paths = music_files(path)

    def read() -> Corpus:
        return _of_files(str(path), f"{path.name}: {len(paths)} files", paths, encoding, steps_per_beat)

    return _cached([content_digest(paths), encoding, steps_per_beat], read)


def _of_files(
    place: str, found: str, paths: list[Path], encoding: str, steps_per_beat: int, voices: bool = False
) -> Corpus:
    songs, skipped, missed = read_files(paths, steps_per_beat, f"reading {place} (once)", voices)
    if not songs:
        raise UserError(f"{place}: no file can be read; {skipped_line(skipped)}. Pass a folder of pitched music.")
    table = table_of_songs(place, found, songs, encoding, steps_per_beat)
    lines = [skipped_line(skipped)] if skipped else []
    lines += [skipped_line(missed, "songs of files that hold others")] if missed else []
    table = replace(table, report=(*table.report, *lines))
    return _of_table(place, table, steps_per_beat)


def _of_table(name: str, table: Table, steps_per_beat: int) -> Corpus:
    side = np.repeat(table.sides, table.lengths)
    splits = {
        split: Split(table.values[side == number], table.lengths[table.sides == number])
        for number, split in enumerate(SPLITS)
    }
    train, longest = splits["train"].values, int(splits["train"].lengths.max())  # nothing is learned of the others
    spec = DataSpec(
        encoding=table.encoding,
        features=train.shape[1],
        steps_per_beat=steps_per_beat,
        steps_per_bar=table.steps_per_bar,
        beat_type=table.beat_type,
        tempo=table.tempo,
        window=min(table.window or WINDOW_BEATS * steps_per_beat, longest),
        longest_song=longest,
        typical_song=int(np.median(splits["train"].lengths)),
        train_steps=len(train),
        unit_interval=table.encoding == "real" and bool(train.min() >= 0 and train.max() <= 1),
    )
    sizes = [f"{name} {len(split.lengths):,} songs, {len(split.values):,} steps" for name, split in splits.items()]
    return _corpus(name, spec, splits, (*table.report, " | ".join(sizes)))


def _corpus(name: str, spec: DataSpec, splits: dict[str, Split], report: tuple[str, ...]) -> Corpus:
    return Corpus(name, spec, splits, tuple(map(printable, report)), fingerprint(spec, splits))


def fingerprint(spec: DataSpec, splits: dict[str, Split]) -> str:
    """SHA-256 (hex) of what a model is trained and scored on."""
    total = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())
    for name in SPLITS:
        for array in (splits[name].values, splits[name].lengths):
            total.update(f"{name} {array.dtype.str} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def save_corpus(corpus: Corpus, path: Path) -> None:
    """Writes a corpus as `.npz`, which `load_corpus` takes on machines without readers of music."""
    meta = {key: getattr(corpus, key) for key in ("name", "report", "fingerprint")}
    text = json.dumps({"format": FORMAT, "spec": asdict(corpus.spec), **meta})
    arrays: dict[str, npt.NDArray[np.generic]] = {"meta": np.array(text)}
    for name, split in corpus.splits.items():
        arrays |= {f"{name}_values": split.values, f"{name}_lengths": split.lengths}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_saved(path: Path) -> Corpus:
    """Reads what `save_corpus` wrote.

    Raises:
        UserError: it did not write this, or the file is damaged.
    """
    return _restored(path, load_arrays(path))


def _restored(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> Corpus:
    try:
        meta = json.loads(str(arrays["meta"]))
        splits = {name: Split(arrays[f"{name}_values"], arrays[f"{name}_lengths"]) for name in SPLITS}  # type: ignore[arg-type]  # the fingerprint tells
        corpus = _corpus(meta["name"], DataSpec(**meta["spec"]), splits, tuple(meta["report"]))
        whole = (meta["format"], meta["fingerprint"]) == (FORMAT, corpus.fingerprint)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a corpus that save_corpus wrote ({error}). Save it anew.") from error
    if not whole:
        raise UserError(f"{path}: a damaged corpus, or one of another version. Save it anew.")
    return corpus


def _cached(key: list[str | int], read: Callable[[], Corpus]) -> Corpus:
    """A corpus from the cache, or read and put there."""
    name = hashlib.sha256(json.dumps([READER_VERSION, FORMAT, *key]).encode()).hexdigest()
    path = cache_folder() / f"{name[:32]}.npz"
    try:
        return read_saved(path)
    except UserError:
        pass  # not there yet, or damaged: it is written anew
    corpus = read()
    try:
        save_corpus(corpus, path)
    except OSError as error:
        line = f"not cached in {path.parent} ({error.strerror}): set XDG_CACHE_HOME to a writable folder"
        return replace(corpus, report=(*corpus.report, line))
    return corpus
