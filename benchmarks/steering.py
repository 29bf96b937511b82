"""What a code says: songs of the test split, and pieces drawn with their codes.

    python -m benchmarks.steering --data ../shared/data/pianorolls/jsb_chorales.json --checkpoints DIR

DIR holds checkpoints of models of these data, each in a folder of its own, such as `elbo_table --keep DIR` leaves. For
every song a model draws a piece as `vae.sample --reconstruct` does, and one with codes that have nothing of the song
(`--vary --amount 1`), as the yardstick: what all songs of such data have in common, no code needs to say.

What a song and its piece share of their pitch classes is the sum over the twelve of the smaller share of sounding keys;
the other columns are Pearson's correlation over the songs, pairs with a silent one left out. No choice is made on this.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import RESULTS, ROOT, Table, command, machine, recorded, write
from sweep.versions import revision
from vae import checkpoint
from vae.corpus import load_corpus
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec
from vae.errors import UserError, exit_code
from vae.pieces import vary
from vae.statistics import chroma, notes_per_step, polyphony, sounding_and_onsets

NAME = "steering"
MOST_SONGS = 100
AMOUNTS = (0.0, 1.0)
_COLUMNS = (
    "steered (by another code)",
    "pitch classes shared",
    "keys at once",
    "notes per step",
    "mean pitch",
)

Array = npt.NDArray[Any]


def features(piece: Array, spec: DataSpec) -> dict[str, Array]:
    """Of one piece, [T, D], that is not silent: the share of each pitch class, [12], and three numbers."""
    sounding, onsets = sounding_and_onsets(piece[None], spec)
    keys = sounding[0].sum(0).astype(np.float64)
    pitches = np.arange(LOWEST_PITCH, LOWEST_PITCH + PITCHES)
    return {
        "classes": chroma(keys) / keys.sum(),
        "polyphony": polyphony(sounding)[0],
        "notes": notes_per_step(onsets)[0],
        "pitch": keys @ pitches / keys.sum(),
    }


def compare(songs: list[Array], pieces: list[Array], spec: DataSpec) -> dict[str, float | None]:
    """What pieces have of the songs beside them; None where all songs are alike, or silent."""
    heard = [pair for pair in zip(songs, pieces, strict=True) if all(one[:, :PITCHES].any() for one in pair)]
    if not heard:
        return dict.fromkeys(("classes", "polyphony", "notes", "pitch"))
    theirs, ours = (
        {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        for parts in ([features(piece, spec) for piece in group] for group in zip(*heard, strict=True))
    )
    shared = {"classes": float(np.minimum(theirs["classes"], ours["classes"]).sum(1).mean())}
    return shared | {name: _correlation(theirs[name], ours[name]) for name in ("polyphony", "notes", "pitch")}


def _correlation(a: Array, b: Array) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else None


def measure(place: Path, songs: list[Array], spec: DataSpec, seed: int) -> dict[str, Any]:
    """A row of one checkpoint."""
    model = checkpoint.load(place).model
    row: dict[str, Any] = {"model": place.name, "family": model.config.family, "songs": len(songs)}
    for amount in AMOUNTS:
        pieces = [vary(model, song, amount, 1, 1.0, seed + number)[0] for number, song in enumerate(songs)]
        row[f"amount {amount:g}"] = compare(songs, pieces, spec)
    return row


def table(rows: list[dict[str, Any]]) -> Table:
    """A row a model: steered, and in brackets the yardstick."""
    steered, other = (f"amount {amount:g}" for amount in AMOUNTS)
    lines = [
        (row["model"], *(f"{_figure(row[steered][name])} ({_figure(row[other][name])})" for name in row[steered]))
        for row in rows
    ]
    return Table(_COLUMNS, lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def run(args: argparse.Namespace) -> None:
    """Measures all checkpoints of the data, adds them to those recorded, and writes the table.

    Raises:
        UserError: there are none, or the data are no music.
    """
    corpus = load_corpus(args.data, None, None, args.steps_per_bar)
    if not corpus.spec.is_music:
        raise UserError(f"{args.data}: arrays have no pitches; pass music.")
    songs = corpus.splits["test"].songs()[:MOST_SONGS]
    places = [path.parent for path in sorted(args.checkpoints.glob(f"*/{checkpoint.CONFIG}"))]
    own = [place for place in places if _fingerprint(place) == corpus.fingerprint]
    if not own:
        raise UserError(f"{args.checkpoints}: has no checkpoint of {args.data} read so; see --steps-per-bar.")
    rows = {(row["data"], row["model"]): row for row in recorded(NAME, "rows", args.out)}
    for place in own:
        row = {"data": Path(args.data).stem, **measure(place, songs, corpus.spec, args.seed)}
        rows[row["data"], row["model"]] = row | {"command": command(NAME), "revision": revision(), "machine": machine()}
    ordered = [rows[key] for key in sorted(rows)]
    write(NAME, {"rows": ordered}, table(ordered), args.out)


def _fingerprint(place: Path) -> str:
    return str(checkpoint.read_json(place / checkpoint.CONFIG)["fingerprint"])


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="Songs, and pieces with their codes.")
    parser.add_argument("--data", required=True, metavar="PATH", help="as of sweep.run")
    parser.add_argument("--steps-per-bar", type=int, metavar="N", help="as of sweep.run")
    parser.add_argument("--checkpoints", required=True, type=Path, metavar="DIR", help="folders of checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.relative_to(ROOT)}/{NAME}.json")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
