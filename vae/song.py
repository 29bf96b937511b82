"""A song that a command is given: a file of music, or one of the data that a model was trained on."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.arguments import chosen_corpus
from vae.checkpoint import Checkpoint
from vae.encoding import encode
from vae.errors import UserError
from vae.splitting import SPLITS

NAMES = "a file of music, or test:0, valid:3 ... of the data"


def read_song(name: str, loaded: Checkpoint, args: argparse.Namespace, directory: Path) -> npt.NDArray[Any]:
    """The song of a name, [T, D], as the model of a checkpoint takes it.

    Args:
        name: see `NAMES`.
        loaded: the checkpoint.
        args: as of `chosen_corpus`.
        directory: where it lies.

    Raises:
        UserError: there is no such song.
    """
    if (parts := re.fullmatch(rf"({'|'.join(SPLITS)}):(\d+)", name)) is None:
        return _of_file(Path(name).expanduser(), loaded)
    corpus = chosen_corpus(loaded, args, directory)
    split, number = corpus.splits[parts[1]], int(parts[2])
    if number >= len(split.lengths):
        raise UserError(f"{name}: {parts[1]} has the songs 0 to {len(split.lengths) - 1}.")
    end = int(split.lengths[: number + 1].sum())
    return np.ascontiguousarray(split.values[end - int(split.lengths[number]) : end])


def _of_file(path: Path, loaded: Checkpoint) -> npt.NDArray[Any]:
    from vae.library import MUSIC_SUFFIXES, read_files  # here, for a bare machine has no readers

    spec = loaded.spec
    if not path.is_file() or path.suffix.lower() not in MUSIC_SUFFIXES:
        raise UserError(f"{path}: no song; pass {NAMES}.")
    if not spec.is_music:
        raise UserError(f"{path}: the model was trained on arrays; pass test:0 or another of its data.")
    songs, skipped, missed = read_files([path], spec.steps_per_beat, f"reading {path.name}")
    if not songs:
        raise UserError(f"{(skipped or missed)[0]}; pass another song.")
    return encode(songs[0], spec.encoding)
