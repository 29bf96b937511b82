"""What a code says: songs of the test split, and pieces drawn with their codes.

    python -m benchmarks.steering --data ../shared/data/pianorolls/jsb_chorales.json --checkpoints DIR

DIR holds checkpoints of models of these data, each in a folder of its own, such as `elbo_table --keep DIR` leaves. For
every song a model draws a piece as `vae.sample --reconstruct` does, and one with codes that have nothing of the song
(`--vary --amount 1`), as the yardstick: what all songs of such data have in common, no code needs to say.

What a song and its piece share of their pitch classes is the sum over the twelve of the smaller share of sounding keys;
the other columns are Pearson's correlation over the songs. No choice is made on this.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import RESULTS, ROOT, Table, write
from vae import checkpoint
from vae.corpus import Split, load_corpus
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec
from vae.pieces import vary
from vae.statistics import notes_per_step, sounding_and_onsets

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


def songs_of(split: Split) -> list[Array]:
    """The first songs of a split, [T, D] each."""
    ends = np.cumsum(split.lengths)
    return [split.values[end - length : end] for end, length in zip(ends, split.lengths, strict=True)][:MOST_SONGS]


def features(piece: Array, spec: DataSpec) -> dict[str, Array]:
    """Of one piece, [T, D]: the share of each pitch class, [12], and three numbers."""
    sounding, onsets = sounding_and_onsets(piece[None], spec)
    keys = sounding[0].sum(0).astype(np.float64)
    pitches = np.arange(LOWEST_PITCH, LOWEST_PITCH + PITCHES)
    classes = np.bincount(pitches % 12, weights=keys, minlength=12)
    total = max(keys.sum(), 1.0)
    return {
        "classes": classes / total,
        "polyphony": keys.sum() / len(piece),
        "notes": notes_per_step(onsets)[0],
        "pitch": (keys * pitches).sum() / total,
    }


def compare(songs: list[Array], pieces: list[Array], spec: DataSpec) -> dict[str, float]:
    """What pieces have of the songs beside them."""
    theirs, ours = (
        {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        for parts in ([features(piece, spec) for piece in group] for group in (songs, pieces))
    )
    shared = {"classes": float(np.minimum(theirs["classes"], ours["classes"]).sum(1).mean())}
    return shared | {
        name: float(np.corrcoef(theirs[name], ours[name])[0, 1]) for name in ("polyphony", "notes", "pitch")
    }


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
        (row["model"], *(f"{row[steered][name]:.2f} ({row[other][name]:.2f})" for name in row[steered])) for row in rows
    ]
    return Table(_COLUMNS, lines)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="Songs, and pieces with their codes.")
    parser.add_argument("--data", required=True, metavar="PATH", help="as of sweep.run")
    parser.add_argument("--steps-per-bar", type=int, metavar="N", help="as of sweep.run")
    parser.add_argument("--checkpoints", required=True, type=Path, metavar="DIR", help="folders of checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.relative_to(ROOT)}/{NAME}.json")
    args = parser.parse_args(argv)
    corpus = load_corpus(args.data, None, None, args.steps_per_bar)
    songs = songs_of(corpus.splits["test"])
    places = [place.parent for place in sorted(args.checkpoints.glob(f"*/{checkpoint.CONFIG}"))]
    trained_on = {place: Path(checkpoint.read_json(place / checkpoint.CONFIG)["data"]).name for place in places}
    own = [place for place in places if trained_on[place] == Path(corpus.name).name]
    rows = [measure(place, songs, corpus.spec, args.seed) for place in own]
    write(NAME, {"rows": rows}, table(rows), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
