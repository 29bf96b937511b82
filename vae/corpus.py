"""Named corpora and user files, read into songs split by tune."""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae.arrays import Table, load_arrays, read_json, table_of
from vae.encoding import FEATURES, HIGHEST_PITCH, LOWEST_PITCH, DataSpec, Song, encode
from vae.errors import UserError
from vae.files import write_atomically
from vae.library import MUSIC_SUFFIXES, content_digest, music_files, read_files, skipped_line
from vae.midi import DEFAULT_TEMPO
from vae.scores import chorales
from vae.splitting import SPLITS as SPLITS
from vae.splitting import deal, tunes

READER_VERSION = 1
"""Counts up with every change of what reading gives, so that no cached corpus outlives its reader."""
FORMAT = "music-vae-sweep corpus 1"
WINDOW_BEATS = 16
JSON_TEMPO = 100.0  # a pace at which quarter-note steps of chorales sound well; the files state none


@dataclass(frozen=True)
class Split:
    """Songs laid end to end."""

    values: npt.NDArray[np.uint8] | npt.NDArray[np.float32]  # [steps, D]; uint8 of 0 and 1, or float32 if real
    lengths: npt.NDArray[np.int64]  # [songs], steps of each; they sum to len(values)


@dataclass(frozen=True)
class Corpus:
    """Encoded music, split: what trainers and sweeps take."""

    name: str
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
        data: `bach`; a folder or file of music; piano rolls in `.json`; an `.npy` or `.npz` of arrays; or an `.npz`
            from `save_corpus`.
        encoding: `roll` or `roll_onset`, the default for music; arrays are what they are.
        steps_per_beat: 4 by default for music, 1 for arrays, which state no beat.
        steps_per_bar: instead of the commonest metre's.

    Raises:
        UserError: there is no such corpus, or it cannot be read so.
    """
    for name, value in (("steps per beat", steps_per_beat), ("steps per bar", steps_per_bar)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be 1 or more, found {value}. Leave it out for the default.")
    corpus = _load(data, encoding, steps_per_beat)
    if steps_per_bar is not None:
        corpus = _corpus(corpus.name, replace(corpus.spec, steps_per_bar=steps_per_bar), corpus.splits, corpus.report)
    return corpus


def _load(data: str, encoding: str | None, steps_per_beat: int | None) -> Corpus:
    path = Path(data).expanduser()
    if data == "bach":
        return _bach(_music_encoding(data, encoding), steps_per_beat or 4)
    if not path.exists():
        forms = "bach, a folder of music, or a .json, .npy or .npz file"
        raise UserError(f"{data}: no such file or folder. Pass {forms}.")
    if path.is_dir() or path.suffix.lower() in MUSIC_SUFFIXES:
        return _folder(path, _music_encoding(data, encoding), steps_per_beat or 4)
    corpus = _file(path, steps_per_beat)
    if encoding not in (None, corpus.spec.encoding):
        found = f"the data are {corpus.spec.encoding}"
        raise UserError(f"{data}: the encoding must be that of the data, found {encoding}; {found}. Leave it out.")
    return corpus


def _music_encoding(data: str, encoding: str | None) -> str:
    if encoding not in (None, *FEATURES):
        raise UserError(f"{data}: the encoding of music must be {' or '.join(FEATURES)}, found {encoding}.")
    return encoding or "roll_onset"


def _file(path: Path, steps_per_beat: int | None) -> Corpus:
    """Data that are arrays already."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_table(path, read_json(path), steps_per_beat, JSON_TEMPO)
    if suffix not in (".npy", ".npz"):
        known = ", ".join((*MUSIC_SUFFIXES, ".json", ".npy", ".npz"))
        raise UserError(f"{path}: the suffix must be one of {known}, found {suffix or 'none'}. Rename or convert it.")
    arrays = load_arrays(path)
    if "meta" not in arrays:
        return _of_table(path, table_of(path, arrays), steps_per_beat, DEFAULT_TEMPO)
    corpus = _restored(path, arrays)
    if steps_per_beat not in (None, corpus.spec.steps_per_beat):
        found = f"this file has {corpus.spec.steps_per_beat}"
        raise UserError(
            f"{path}: steps per beat cannot change any more, found {steps_per_beat}; {found}. Leave it out."
        )
    return corpus


def _of_table(path: Path, table: Table, steps_per_beat: int | None, tempo: float) -> Corpus:
    values, steps_per_beat = table.values, steps_per_beat or 1
    longest = int(table.lengths.max())
    own_unit = path.suffix.lower() != ".json"  # an array [N, T, 88] is N pieces of T steps
    spec = DataSpec(
        encoding=table.encoding,
        features=values.shape[1],
        steps_per_beat=steps_per_beat,
        steps_per_bar=None,
        tempo=tempo,
        window=longest if own_unit else min(WINDOW_BEATS * steps_per_beat, longest),
        longest_song=longest,
        unit_interval=table.encoding == "real" and bool(values.min() >= 0 and values.max() <= 1),
    )
    splits = _splits(table)
    found = f"{path.name}: {len(table.lengths):,} songs, {len(values):,} steps of {values.shape[1]} numbers"
    return _corpus(path.name, spec, splits, (f"{found}, {table.encoding}", *table.notes, _sizes(splits)))


def _bach(encoding: str, steps_per_beat: int) -> Corpus:
    try:
        source = f"music21 {version('music21')}"
    except PackageNotFoundError as error:
        way_out = "Install music21, or pass an .npz that save_corpus wrote."
        raise UserError(f"bach: the chorales come with the package music21, which is missing. {way_out}") from error

    def read() -> Corpus:
        paths = chorales()
        songs, skipped = read_files(sorted(set(paths)), steps_per_beat, "Reading Bach's chorales, once")
        found = f"bach: {len(paths)} chorales listed"
        # The list has some works twice, which need not be read twice.
        return _of_songs("bach", songs, encoding, steps_per_beat, found, len(paths) - len(set(paths)), skipped)

    return _cached([source, encoding, steps_per_beat], read)


def _folder(path: Path, encoding: str, steps_per_beat: int) -> Corpus:
    files = music_files(path)

    def read() -> Corpus:
        songs, skipped = read_files(files, steps_per_beat, f"Reading {path}, once")
        if not songs:
            raise UserError(f"{path}: no file can be read; {skipped_line(skipped)}. Pass a folder with pitched music.")
        found = f"{path.name}: {len(files)} files"
        return _of_songs(str(path), songs, encoding, steps_per_beat, found, 0, skipped)

    corpus = _cached([content_digest(files), encoding, steps_per_beat], read)
    return replace(corpus, name=path.name)  # the folder may have moved since


def _of_songs(
    name: str,
    songs: list[Song],
    encoding: str,
    steps_per_beat: int,
    found: str,
    repeated: int,
    skipped: list[str],
) -> Corpus:
    """Songs split by tune; in an order that neither names nor places of files change."""
    listed = len(songs) + repeated
    songs = sorted(songs, key=lambda song: (song.notes.tobytes(), song.tempo, song.steps_per_bar or 0))
    songs = list({song.notes.tobytes(): song for song in songs}.values())
    names = tunes(songs, steps_per_beat)
    sizes = Counter(names)
    if len(sizes) < len(SPLITS):
        rule = "train, valid and test need a tune each, 3 at least"
        raise UserError(f"{name}: {rule}; found {len(songs)} songs of {len(sizes)} tunes. Pass more music.")
    lengths = np.array([song.steps for song in songs], np.int64)
    values = np.concatenate([encode(song, encoding) for song in songs])
    splits = _splits(Table(encoding, values, lengths, deal(names)))
    spec = DataSpec(
        encoding=encoding,
        features=FEATURES[encoding],
        steps_per_beat=steps_per_beat,
        steps_per_bar=Counter(song.steps_per_bar for song in songs).most_common(1)[0][0],
        tempo=float(np.median([song.tempo for song in songs])),
        window=min(WINDOW_BEATS * steps_per_beat, int(lengths.max())),
        longest_song=int(lengths.max()),
    )
    notes = sum(len(song.notes) for song in songs)
    report = [
        f"{found}, {len(songs)} songs ({listed - len(songs)} duplicates dropped), {notes:,} notes, "
        f"{len(values):,} steps of 1/{steps_per_beat} beat",
        f"{len(sizes)} tunes, {sum(size > 1 for size in sizes.values())} of them in several songs, none on two sides",
        _sizes(splits),
    ]
    if outside := sum(song.out_of_range for song in songs):
        report.append(f"{outside:,} notes outside pitch {LOWEST_PITCH}..{HIGHEST_PITCH} left out")
    if skipped:
        report.append(skipped_line(skipped))
    return _corpus(name, spec, splits, tuple(report))


def _splits(table: Table) -> dict[str, Split]:
    side_of_step = np.repeat(table.sides, table.lengths)
    return {
        split: Split(table.values[side_of_step == side], table.lengths[table.sides == side])
        for side, split in enumerate(SPLITS)
    }


def _sizes(splits: dict[str, Split]) -> str:
    return " | ".join(
        f"{name} {len(split.lengths):,} songs, {len(split.values):,} steps" for name, split in splits.items()
    )


def _corpus(name: str, spec: DataSpec, splits: dict[str, Split], report: tuple[str, ...]) -> Corpus:
    return Corpus(name, spec, splits, report, fingerprint(spec, splits))


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
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a corpus that save_corpus wrote ({error}). Save it anew.") from error
    if (meta["format"], meta["fingerprint"]) != (FORMAT, corpus.fingerprint):
        raise UserError(f"{path}: a damaged corpus, or one of another version. Save it anew.")
    return corpus


def _cached(key: list[str | int], read: Callable[[], Corpus]) -> Corpus:
    """A corpus from the cache, or read and put there."""
    name = hashlib.sha256(json.dumps([READER_VERSION, FORMAT, *key]).encode()).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(home).expanduser() / "music-vae-sweep" / f"{name[:32]}.npz"
    try:
        return read_saved(path)
    except UserError:
        pass  # not there yet, or damaged: it is written anew
    corpus = read()
    try:
        save_corpus(corpus, path)
    except OSError as error:
        line = f"not cached in {path.parent} ({error.strerror}): set XDG_CACHE_HOME to a folder that can be written"
        return replace(corpus, report=(*corpus.report, line))
    return corpus
