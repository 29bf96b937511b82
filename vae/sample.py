"""New pieces from a checkpoint, or pieces that songs steer by their codes.

Commands: `python -m vae.sample --best -n 16` writes MIDI files and one picture of them; so do
`--reconstruct SONG`, `--vary SONG --amount 0.3` and `--interpolate SONG SONG`, after the songs.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vae import checkpoint
from vae.arguments import Parser, add_checkpoint_arguments, chosen_directory, local_results
from vae.config import kl_as_wide
from vae.encoding import DataSpec
from vae.errors import UserError, exit_code
from vae.files import printable
from vae.models.base import Vae
from vae.pieces import draw, interpolate, vary
from vae.rendering import FOLDERS, as_array, write
from vae.sheet import PANELS
from vae.song import NAMES, Given, is_of_data, read_songs
from vae.statistics import measure
from vae.store import is_remote
from vae.trainer import MIN_KL

Array = npt.NDArray[Any]

_AMOUNT = 0.5


class _Pieces(NamedTuple):
    """What to write."""

    songs: list[Given]  # that steer
    drawn: Array  # [n, T, D]

    def in_order(self) -> Array:
        """The song that pieces begin with, the pieces, and the song that they lead to; of equal length."""
        steps = self.drawn.shape[1]
        before, after = ([song.roll[:steps] for song in songs] for songs in (self.songs[:1], self.songs[1:]))
        return np.stack([*before, *self.drawn, *after])

    def labels(self) -> dict[int, str]:
        """The names of the songs, by their place in that order."""
        places = (0, len(self.drawn) + 1)
        return {place: song.name for place, song in zip(places, self.songs, strict=False)}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m vae.sample",
        description="Writes new music from a checkpoint: MIDI files and a picture of them.",
    )
    add_checkpoint_arguments(parser)
    group = parser.add_argument_group(
        "steering",
        f"A SONG is {NAMES}. It is written too, as the model reads it: before the pieces, or of --interpolate the "
        "second after them, both as long as the shorter.",
    )
    steer = group.add_mutually_exclusive_group()
    steer.add_argument("--reconstruct", metavar="SONG", help="pieces with the codes of a song")
    steer.add_argument("--vary", metavar="SONG", help="pieces with the codes of a song, moved at random")
    steer.add_argument("--interpolate", nargs=2, metavar="SONG", help="pieces that lead from one song to another")
    group.add_argument("--data", help="of test:0 and the like (default: what the model was trained on)")
    group.add_argument(
        "--amount", type=float, metavar="A", help=f"of --vary: 0 moves nothing, 1 forgets the song (default: {_AMOUNT})"
    )
    parser.add_argument("-n", type=int, metavar="N", help="pieces beside the songs (default: 16 in all)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="under 1 is safer, over 1 is wilder; of keys, not of real numbers (default: 1.0)",
    )
    parser.add_argument("--wav", action="store_true", help="write sound too, 000.wav and on")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pieces (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: samples/, reconstruction/, variations/ or interpolation/, in the sweep or the checkpoint",
    )
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense.

    Raises:
        UserError: naming the flag.
    """
    if args.n is not None and args.n < 1:
        raise UserError(f"-n must be at least 1, but got {args.n}.")
    if not 0.0 < args.temperature < math.inf:
        raise UserError(f"--temperature must be a number above 0, but got {args.temperature}.")
    if args.seed < 0:
        raise UserError(f"--seed must be at least 0, but got {args.seed}.")
    if args.data is not None and not any(map(is_of_data, _steering(args))):
        raise UserError("--data says whose songs test:0 and the like are, but none of them is asked for; leave it out.")
    if args.amount is not None and args.vary is None:
        raise UserError("--amount says how far --vary goes; pass --vary SONG, or leave it out.")
    if args.amount is not None and not 0.0 <= args.amount <= 1.0:
        raise UserError(f"--amount must lie in 0..1, but got {args.amount}.")


def _run(args: argparse.Namespace) -> None:
    _check(args)
    directory = chosen_directory(args)
    loaded = checkpoint.load(directory)
    if args.checkpoint is None:
        name = directory.parent.name
        home = (local_results() if is_remote(args.results) else Path(args.results)) / name
    else:
        name, home = directory.resolve().name, directory
    if args.wav and not loaded.spec.is_music:
        raise UserError("--wav: the model was trained on arrays, which make no sound; leave it out.")
    out = args.out or home / _folder(args)
    songs = read_songs(_steering(args), loaded, args, directory)
    _spare(songs, out)
    pieces = _Pieces(songs, _drawn(args, loaded.model, songs))
    names = write(pieces.in_order(), _played(loaded.spec, songs), out, name, pieces.labels(), args.wav)
    lines = [
        _origin(name, loaded),
        *_songs_told(pieces, loaded),
        _content(pieces.drawn, loaded.spec),
        f"{printable(out)}: {_written(names, args.wav)}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _played(spec: DataSpec, songs: list[Given]) -> DataSpec:
    """How pieces are written: at the tempo and in the metre of the song that they begin with, if one does."""
    if not songs:
        return spec
    metre = songs[0] if songs[0].steps_per_bar is not None else spec
    return replace(spec, tempo=songs[0].tempo, steps_per_bar=metre.steps_per_bar, beat_type=metre.beat_type)


def _steering(args: argparse.Namespace) -> list[str]:
    """The names of the songs that steer."""
    return args.interpolate or [name for name in (args.reconstruct, args.vary) if name is not None]


def _folder(args: argparse.Namespace) -> str:
    """Where the pieces go, in the folder of the sweep or the checkpoint."""
    free, *steered = FOLDERS
    asked = zip(steered, (args.reconstruct, args.vary, args.interpolate), strict=True)
    return next((folder for folder, songs in asked if songs is not None), free)


def _spare(songs: list[Given], out: Path) -> None:
    """Refuses to write over a song that steers.

    Raises:
        UserError: one lies where the pieces are to go.
    """
    for song in songs:
        if song.path is not None and song.path.parent.resolve() == out.resolve():
            raise UserError(f"{song.path}: lies where the pieces go and may be replaced; pass another --out.")


def _drawn(args: argparse.Namespace, model: Vae, songs: list[Given]) -> Array:
    """The pieces that the arguments ask for, [n, T, D]."""
    how = (args.n or PANELS - len(songs), args.temperature, args.seed)
    if args.interpolate is not None:
        first, last = songs
        return interpolate(model, first.roll, last.roll, *how)
    if args.vary is not None:
        return vary(model, songs[0].roll, _AMOUNT if args.amount is None else args.amount, *how)
    if args.reconstruct is not None:
        return vary(model, songs[0].roll, 0.0, *how)
    return draw(model, *how)


def _songs_told(pieces: _Pieces, loaded: checkpoint.Checkpoint) -> list[str]:
    """A line on each song that steers: where it stands, and what of it does not fit."""
    steps, lines = pieces.drawn.shape[1], []
    for place, song in zip(pieces.labels(), pieces.songs, strict=True):
        cut = f", its first {steps} of {len(song.roll)} steps" if steps < len(song.roll) else ""
        other = song.steps_per_bar is not None and song.steps_per_bar != loaded.spec.steps_per_bar
        metre = ", in a metre that the model was not trained on" if other and loaded.spec.steps_per_bar else ""
        lines.append(f"{place:03d}: {song.name} as the model reads it{cut}{metre}")
    return [*lines, *(_code_told(loaded) if lines else [])]


def _code_told(loaded: checkpoint.Checkpoint) -> list[str]:
    """A line where songs can't steer: by codes that don't last, or that say next to nothing."""
    if loaded.model.code_unit == "step":
        return [f"codes of single steps ({loaded.config.family}) say nothing lasting: pieces go their own way"]
    kl, gain = (loaded.record["metrics"].get(name, math.inf) for name in ("kl", "code_gain"))
    if gain < kl_as_wide(loaded.spec, MIN_KL) / 2:  # not the sweep's own floor, which may be 0
        return [f"its code says next to nothing (kl {kl:.3f}, code_gain {gain:.3f}): pieces go their own way"]
    return []


def _origin(name: str, loaded: checkpoint.Checkpoint) -> str:
    """Where the samples come from, in a line."""
    metrics = loaded.record["metrics"]
    trial = metrics.get("provenance", {}).get("trial")
    parts = [loaded.config.family] + ([] if trial is None else [f"trial {trial}"])
    parts += [f"epoch {metrics['epoch']:.0f}"] if "epoch" in metrics else []
    parts += [f"val_elbo {metrics['val_elbo']:.3f} nats per step"] if "val_elbo" in metrics else []
    return f"{name}: {', '.join(parts)}"


def _content(samples: Array, spec: DataSpec) -> str:
    """What the samples are like, in a line."""
    if not spec.is_music:
        shape = list(as_array(samples).shape)
        mean, std = (of(samples, dtype=np.float64) for of in (np.mean, np.std))  # squares of float32 may overflow
        return f"array {shape} {samples.dtype}, mean {mean:.3f}, std {std:.3f}"
    parts = [
        f"{name.replace('_', ' ')} {values[~np.isnan(values)].mean():.2f}"
        for name, values in measure(samples, spec).items()
        if not np.isnan(values).all()
    ]
    return f"{len(samples)} piece{'s' * (len(samples) > 1)} of {samples.shape[1]} steps: {', '.join(parts)}"


def _written(names: list[str], sound: bool) -> str:
    """The files in a few words: of pieces the first and the last, then of their sound, and the picture."""
    *pieces, picture = names
    span = " to ".join(dict.fromkeys((pieces[0], pieces[-1])))
    return ", ".join([span, *([span.replace(".mid", ".wav")] if sound else []), picture])


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
