"""Songs that a command is given: files of music, or some of the data that a model was trained on."""

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from vae.arguments import chosen_corpus
from vae.checkpoint import Checkpoint
from vae.corpus import Corpus, existing
from vae.encoding import DataSpec, Song, encode
from vae.errors import UserError
from vae.grid import UnreadableFileError
from vae.splitting import SPLITS

NAMES = "a file of music (of several songs: book.abc:0), or test:0, valid:3 ... of the data"


class Given(NamedTuple):
    """A song, as a model takes it."""

    name: str
    path: Path | None  # of its file
    roll: npt.NDArray[Any]  # [T, D]
    tempo: float  # beats a minute
    steps_per_bar: int | None
    beat_type: int


def is_of_data(name: str) -> bool:
    """Whether a name is that of a song of the data."""
    return re.fullmatch(rf"({'|'.join(SPLITS)}):\d+", name) is not None


def read_songs(names: list[str], loaded: Checkpoint, args: argparse.Namespace, directory: Path) -> list[Given]:
    """The songs of some names, see `NAMES`.

    Args:
        names: their names.
        loaded: the checkpoint whose model takes them.
        args: as of `chosen_corpus`.
        directory: likewise.

    Raises:
        UserError: there is no such song.
    """
    corpus = chosen_corpus(loaded, args, directory) if any(map(is_of_data, names)) else None
    return [
        _of_corpus(name, corpus) if corpus is not None and is_of_data(name) else _of_file(name, loaded.spec)
        for name in names
    ]


def _of_corpus(name: str, corpus: Corpus) -> Given:
    split, _, number = name.partition(":")
    songs = corpus.splits[split].songs()
    if int(number) >= len(songs):
        raise UserError(f"{name}: {split} has the songs 0 to {len(songs) - 1}.")
    return Given(name, None, songs[int(number)], corpus.spec.tempo, corpus.spec.steps_per_bar, corpus.spec.beat_type)


def _of_file(name: str, spec: DataSpec) -> Given:
    from vae.library import MUSIC_SUFFIXES, read_file  # here, for a bare machine has no readers

    numbered = re.fullmatch(r"(.+):(\d+)", name)
    path = existing(numbered[1] if numbered else name, f"Pass {NAMES}.")
    if path.is_dir() or path.suffix.lower() not in MUSIC_SUFFIXES:
        raise UserError(f"{path}: no file of music ({' '.join(MUSIC_SUFFIXES)}). Pass {NAMES}.")
    if not spec.is_music:
        raise UserError(f"{path}: the model was trained on arrays; pass test:0 or another of its data.")
    try:
        songs = read_file(path, spec.steps_per_beat)
    except UnreadableFileError as error:
        raise UserError(f"{path}: cannot be read: {error.reason}. Pass another song.") from None
    if numbered is None and len(songs) > 1:
        raise UserError(f"{path}: holds {len(songs)} songs; pass one of {path}:0 to {path}:{len(songs) - 1}.")
    number = int(numbered[2]) if numbered else 0
    if number >= len(songs):
        raise UserError(f"{name}: it holds {len(songs)} song{'s' * (len(songs) > 1)}, the first is {path}:0.")
    song = songs[number]
    if not isinstance(song, Song):
        raise UserError(f"{name}: cannot be read: {song}. Pass another song.")
    return Given(song.name, path, encode(song, spec.encoding), song.tempo, song.steps_per_bar, song.beat_type)
