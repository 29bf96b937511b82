"""New pieces from a checkpoint, or pieces that songs steer by their codes.

Commands: `python -m vae.sample --best -n 16` writes MIDI files and one picture of them; so do
`--reconstruct SONG`, `--vary SONG --amount 0.3` and `--interpolate SONG SONG`, after the songs.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vae import checkpoint
from vae.arguments import add_checkpoint_arguments, chosen_directory
from vae.encoding import DataSpec
from vae.errors import UserError, exit_code
from vae.pieces import draw, interpolate, vary
from vae.rendering import SHEET, as_array, write
from vae.sheet import PANELS
from vae.song import NAMES, read_song
from vae.statistics import measure
from vae.store import is_remote

Array = npt.NDArray[Any]

_AMOUNT = 0.5


class _Pieces(NamedTuple):
    """What to write, in order."""

    folder: str  # its name, beside the checkpoint's
    songs: list[Array]  # that steer, [T, D] each
    drawn: Array  # [n, T, D]

    def in_order(self) -> Array:
        """The song that pieces begin with, the pieces, and the song that they lead to; of equal length."""
        steps = self.drawn.shape[1]
        before, after = self.songs[:1], self.songs[1:]
        return np.stack([*(song[:steps] for song in before), *self.drawn, *(song[:steps] for song in after)])


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m vae.sample",
        description="Writes new music from a checkpoint: MIDI files and a picture of them.",
    )
    add_checkpoint_arguments(parser)
    group = parser.add_argument_group("steering", f"A SONG is {NAMES}. It stands first among the files written.")
    steer = group.add_mutually_exclusive_group()
    steer.add_argument("--reconstruct", metavar="SONG", help="pieces with the codes of a song")
    steer.add_argument("--vary", metavar="SONG", help="pieces with the codes of a song, moved at random")
    steer.add_argument("--interpolate", nargs=2, metavar="SONG", help="pieces that lead from one song to another")
    group.add_argument("--data", help="of test:0 and the like (default: what the model was trained on)")
    group.add_argument(
        "--amount", type=float, metavar="A", help=f"of --vary: 0 moves nothing, 1 forgets the song (default: {_AMOUNT})"
    )
    parser.add_argument("-n", type=int, metavar="N", help="how many pieces (default: 16, with those that steer)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="under 1 is safer, over 1 is wilder (default: 1.0)",
    )
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
        home = Path("results" if is_remote(args.results) else args.results) / name
    else:
        name, home = directory.resolve().name, directory
    pieces = _made(args, loaded, directory)
    out = args.out or home / pieces.folder
    names = write(pieces.in_order(), loaded.spec, out, name)
    lines = [
        _origin(name, loaded),
        _content(pieces.drawn, loaded.spec),
        f"{out}: {names[0]}{f' to {names[-2]}' if len(names) > 2 else ''}, {SHEET}{_places(args)}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _made(args: argparse.Namespace, loaded: checkpoint.Checkpoint, directory: Path) -> _Pieces:
    """The pieces that the arguments ask for."""
    model, asked = loaded.model, args.interpolate or [name for name in (args.reconstruct, args.vary) if name]
    songs = [read_song(name, loaded, args, directory) for name in asked]
    n = args.n or PANELS - len(songs)
    if args.interpolate:
        first, last = songs
        return _Pieces("interpolation", songs, interpolate(model, first, last, n, args.temperature, args.seed))
    if args.vary:
        amount = _AMOUNT if args.amount is None else args.amount
        return _Pieces("variations", songs, vary(model, songs[0], amount, n, args.temperature, args.seed))
    if args.reconstruct:
        return _Pieces("reconstruction", songs, vary(model, songs[0], 0.0, n, args.temperature, args.seed))
    return _Pieces("samples", [], draw(model, n, args.temperature, args.seed))


def _places(args: argparse.Namespace) -> str:
    """Where the songs stand that steer, to be said after the files."""
    if args.interpolate:
        return f"; first {args.interpolate[0]}, last {args.interpolate[1]}, as the model reads them"
    name = args.reconstruct or args.vary
    return f"; first {name}, as the model reads it" if name else ""


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
        return f"array {shape} {samples.dtype}, mean {samples.mean():.3f}, std {samples.std():.3f}"
    parts = [
        f"{name.replace('_', ' ')} {values[~np.isnan(values)].mean():.2f}"
        for name, values in measure(samples, spec).items()
        if not np.isnan(values).all()
    ]
    return f"{len(samples)} pieces of {samples.shape[1]} steps: {', '.join(parts)}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
