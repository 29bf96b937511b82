"""What a sweep finds in some minutes, on the test split, beside published results and each family's defaults.

    python -m benchmarks.elbo_table --data ../shared/data/pianorolls/jsb_chorales.json --minutes 40

The minutes cover search and final training, in turns: a sweep, until it finds nothing better for a while, then at once
its best configuration and the best of the families' defaults, which are made for long training, or the two best if
these are one; for as long as suits them, from where their trials are if those still got better. If time is left, the
same sweep goes on, and so on. So on large sets the time goes into training, and on small ones into search. The winner
is chosen on validation and read on test once. Scoring is timed apart.

`--row` adds rows: each family's defaults, the seed's VAE, and the winner's decoder without a code, trained for as many
minutes each; where a third of the time brought nothing better, anew for as long as suits them, as the winner was; two
at a time, a core each. Rows recorded earlier stay, also of other data, so that a table can be made in parts. A sheet of
each row's samples goes to `docs/samples/`; `--keep` keeps its checkpoint.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from benchmarks import common
from benchmarks.common import RESULTS, ROOT, SEEDS_PARAMS, Table, command, machine, run_module, write
from benchmarks.published import published
from sweep import space
from sweep.begun import read_settings
from sweep.record import TrialRecord
from sweep.results import SweepFolder
from sweep.study import Study
from sweep.versions import revision
from vae import checkpoint
from vae.bounds import TEST_SEED, evaluate, importance_weighted_bound, reconstruction
from vae.config import FAMILY_NAMES
from vae.corpus import Corpus, load_corpus, save_corpus
from vae.errors import UserError, exit_code
from vae.evaluate import code_unit
from vae.pieces import draw
from vae.ranking import is_feasible, rank_key
from vae.sheet import piano_roll_sheet
from vae.windows import Songs

NAME = "elbo_table"
_AT_ONCE = 2  # runs, a core each
SWEEP, UNCODED, SEEDS_OWN = "sweep", "winner without a code", "seed"
ROWS, ALL = (SWEEP, *FAMILY_NAMES, SEEDS_OWN, UNCODED), "all"
SHEETS = ROOT / "docs" / "samples"
PIECES = 8
_SEARCH_SHARE = 0.4
"""Of the minutes left, at most; what follows trains two configurations. Small sets need less, large ones the rest."""
_SEARCH_PATIENCE = 0.3
"""Share of its time that the first search waits for something better; later ones have nothing to hurry for."""
_LEAST_ROUND = 0.2
"""Of the minutes, that must be left for another search; what is less goes into further seeds."""
_GROWING = 0.7
"""A trial whose best epoch lies in this share of those trained, or before, has begun to overfit."""
_LEAST_SHARE = 0.05
"""Of the minutes, that must be left for a row to be trained anew."""
_LEAST_SECONDS = 15.0
"""Less is not worth a final run: it takes some seconds to start and to measure its speed."""
_PATIENCE = 0.33
"""Share of its time that a final run, and the first of a row trained by itself, waits for something better."""
_LONGER = 1.5
"""How many times the epochs to its best a configuration is trained for that then got worse: the learning rate falls
within them, so that its best comes later."""
_COLUMNS = (
    "nats per time step of test",
    *("-ELBO", "per song", "-IWAE", "published estimate", "KL", "code_gain", "active", "code of a", "parameters"),
    "minutes",
)
_NO_CODE = {"beta": 100.0, "free_bits": 0.0, "rate_target": 0.0, "beta_warmup": 0, "beta_cycle": 0}


class Run:
    """One data set's rows in the making."""

    def __init__(self, args: argparse.Namespace, corpus: Corpus, folder: Path) -> None:
        self.args, self.corpus, self.folder = args, corpus, folder
        self.data = Path(args.data).stem
        self.saved = folder / "corpus.npz"
        self.runs: dict[int, list[Path]] = {}  # final runs, by the trial whose configuration they train
        save_corpus(corpus, self.saved)

    def search(self, seconds: float) -> tuple[list[TrialRecord], float]:
        """Runs the sweep, or goes on with it; the trials to train on, and the seconds it took to score."""
        sweep = SweepFolder(self.folder, "table")
        new = ["--data", str(self.saved), "--name", "table", "--seed", str(self.args.seed)]
        words = ["--resume", "table"] if sweep.journal.exists() else [*new, "--patience", str(_SEARCH_PATIENCE)]
        words += ["--results", str(self.folder), "--time-budget", f"{seconds:.0f}s"]
        words += ["--final-seeds", "1"]  # `finals` has the rest of the time
        began, before = time.monotonic(), sweep.read_summary().get("search_seconds") or 0.0
        run_module("sweep.run", words)
        times = sweep.read_summary()
        scoring = time.monotonic() - began - (times["search_seconds"] - before) - times["startup_seconds"]
        return finalists(Study(sweep.journal, read_settings(sweep.journal, "table"), 0)), max(0.0, scoring)

    def train(
        self,
        params: dict[str, Any],
        minutes: float,
        seed: int = 0,
        epochs: int | None = None,
        patience: float = 1.0,
        begin: str | None = None,
    ) -> Path | None:
        """Trains a configuration on a core; its checkpoint, or None if it failed.

        Args:
            params: hyperparameters by name.
            minutes: at most.
            seed: counts from the command's.
            epochs: at most; None: as many as fit.
            patience: see `benchmarks.timed_training`.
            begin: a checkpoint to go on from.
        """
        place = self.folder / f"run-{time.monotonic_ns()}"
        words = ["--data", str(self.saved), "--params", json.dumps(params), "--minutes", str(minutes)]
        words += ["--patience", str(patience), "--seed", str(self.args.seed + seed), "--out", str(place)]
        words += [] if epochs is None else ["--epochs", str(epochs)]
        words += [] if begin is None else ["--begin", begin]
        run_module("benchmarks.timed_training", words)
        return place if (place / checkpoint.METRICS).exists() else None

    def alone(self, params: dict[str, Any], minutes: float) -> Path | None:
        """Trains a configuration on a core; anew if it got worse before its time was over. The better checkpoint."""
        deadline = time.monotonic() + 60.0 * minutes
        places = [self.train(params, minutes, patience=_PATIENCE)]
        left = deadline - time.monotonic()
        if places[0] is not None and left > _LEAST_SHARE * 60.0 * minutes:
            places.append(self.train(params, left / 60.0, epochs=epochs_after(places[0])))
        return max((place for place in places if place is not None), key=_standing, default=None)

    def finals(self, top: list[TrialRecord], deadline: float) -> list[Path]:
        """Trains the configurations of trials on, and those that got worse anew, on another seed; their checkpoints."""
        trials = SweepFolder(self.folder, "table").trials

        def one(record: TrialRecord) -> Path | None:
            before = self.runs.setdefault(record.number, [])
            epochs = fitting_epochs(record, before)
            begin = trials.newest(record.prefix) if epochs is None else None
            left, seed = (deadline - time.monotonic()) / 60.0, len(before)
            place = self.train(record.params, left, seed, epochs, _PATIENCE, begin)
            before += [place] if place is not None else []
            return place

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [place for place in pool.map(one, top) if place is not None]

    def winner(self) -> tuple[Path, dict[str, Any]]:
        """Searches and trains the two best in turns until the minutes are over; the best of all, and of the search."""
        began = time.monotonic()
        deadline, least, made = began + 60.0 * self.args.minutes, _LEAST_ROUND * 60.0 * self.args.minutes, []
        while (left := deadline - time.monotonic()) > _LEAST_SECONDS:
            if left > least or not made:
                top, scoring = self.search(_SEARCH_SHARE * left)
                began, deadline = began + scoring, deadline + scoring
            made += self.finals(top, deadline)
        candidates = [*made, SweepFolder(self.folder, "table").best]
        best = max(candidates, key=_standing)
        return best, {"minutes": (time.monotonic() - began) / 60.0, "chosen_from": len(candidates)}

    def scored(self, model: str, place: Path, minutes: float, extra: dict[str, Any]) -> dict[str, Any]:
        """A row: the checkpoint on the test split; its samples as a sheet."""
        began = time.monotonic()
        loaded = checkpoint.load(place)
        title = f"{self.data}-{model.replace(' ', '-')}"
        if self.args.out is None:
            pieces = draw(loaded.model, PIECES, 1.0, 0)
            SHEETS.mkdir(exist_ok=True)
            piano_roll_sheet(pieces, loaded.spec, SHEETS / f"{title}.png", title)
        if self.args.keep is not None:
            shutil.copytree(place, self.args.keep / title, dirs_exist_ok=True)
        songs = Songs(self.corpus.splits["test"], torch.device("cpu"))
        values = evaluate(loaded.model, songs, TEST_SEED)
        metrics = loaded.record["metrics"]
        row = {
            "data": self.data,
            "model": model,
            "family": loaded.config.family,
            "test_nll": -values["elbo"],
            "test_nll_per_song": -values["elbo_per_song"],
            "test_iwae_nll": -importance_weighted_bound(loaded.model, songs, TEST_SEED, self.args.iwae),
            "iwae_samples": self.args.iwae,
            "kl": values["kl"],
            "code_gain": values["code_gain"],
            "active_units": values["active_units"],
            "code_unit": code_unit(loaded.model),
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "minutes": minutes,
            "valid_nll": -metrics["val_elbo"],
            "feasible_on_validation": is_feasible(metrics, loaded.record["min_kl"]),
            "config": loaded.record["config"],
            **(reconstruction(loaded.model, songs, TEST_SEED) if self.corpus.spec.is_binary else {}),
            **extra,
        }
        return row | {
            "evaluation_minutes": (time.monotonic() - began) / 60.0,
            "command": command(NAME),
            "revision": revision(),
            "machine": machine(),
        }


def _standing(place: Path) -> tuple[bool, float]:
    """Of a checkpoint, on validation."""
    floor = checkpoint.read_json(place / checkpoint.CONFIG)["min_kl"]
    return rank_key(checkpoint.read_json(place / checkpoint.METRICS), floor)


def finalists(study: Study) -> list[TrialRecord]:
    """The best trial and the best of the families' defaults, or the two best if these are one; fewer if there are."""
    ranked = study.top(len(study.records))
    defaults = [record for record in ranked if record.number < len(space.first_points(study.settings.task))]
    return [*ranked[:1], *[record for record in (*defaults[:1], *ranked) if record is not ranked[0]][:1]]


def fitting_epochs(record: TrialRecord, runs: list[Path]) -> int | None:
    """Epochs that suit a configuration which got worse in the search, or in runs of its own; None if it never did."""
    if runs:
        return epochs_after(runs[-1])
    best = int(record.best["epoch"])
    return None if best > _GROWING * record.epoch else math.ceil(_LONGER * best)


def epochs_after(run: Path) -> int:
    """Epochs that suit a configuration which got worse in a run."""
    return math.ceil(_LONGER * checkpoint.read_json(run / checkpoint.METRICS)["epoch"])


def params_of(row: str, earlier: dict[tuple[str, str], dict[str, Any]], data: str) -> dict[str, Any]:
    """The hyperparameters of a row that is trained by itself."""
    if row == SEEDS_OWN:
        return SEEDS_PARAMS
    if row == UNCODED:
        if (data, SWEEP) not in earlier:
            raise UserError(f"--row {UNCODED!r}: needs the row {SWEEP!r} of {data}; add --row {SWEEP}.")
        return {**earlier[data, SWEEP]["config"], **_NO_CODE}
    return {"family": row}


def table(rows: list[dict[str, Any]]) -> Table:
    """All rows, a data set after another, ours before those published."""
    lines: list[tuple[str, ...]] = []
    for data in dict.fromkeys(row["data"] for row in rows):
        lines += [_line(row) for row in rows if row["data"] == data]
        for known in published(data):
            bound = known.bound if known.exact is None else known.exact
            cells = (_figure(bound), _figure(known.bound_per_song), "", _figure(known.estimate))
            exact = " (exact)" if known.exact is not None else ""
            lines.append((f"{data}: {known.model}{exact}", *cells, *[""] * 6))
    return Table(_COLUMNS, lines)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    title = f"our sweep's winner ({row['family']})" if row["model"] == SWEEP else f"our {row['model']}, defaults"
    title = {UNCODED: "the winner's decoder without a code", SEEDS_OWN: "the seed's dense VAE"}.get(row["model"], title)
    return (
        f"{row['data']}: {title}",
        *(_figure(row[name]) for name in ("test_nll", "test_nll_per_song")),
        f"{row['test_iwae_nll']:.2f} (K = {row['iwae_samples']})",
        "",
        f"{row['kl']:.3f}",
        f"{row['code_gain']:.3f}",
        str(row["active_units"]),
        row["code_unit"],
        f"{row['parameters']:,}",
        f"{row['minutes']:.0f}",
    )


def record(args: argparse.Namespace, made: dict[str, Any]) -> None:
    """Adds a row to those recorded, and writes the table."""
    rows = {key: row for key, row in recorded(args).items() if key != (made["data"], made["model"])}
    rows[made["data"], made["model"]] = made
    order = {name: i for i, name in enumerate(ROWS)}
    ordered = sorted(rows.values(), key=lambda row: (row["data"], order[row["model"]]))
    write(NAME, {"rows": ordered}, table(ordered), args.out)


def recorded(args: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows recorded so far, by data and model."""
    return {(row["data"], row["model"]): row for row in common.recorded(NAME, "rows", args.out)}


def run(args: argparse.Namespace) -> None:
    """Makes the rows asked for, and records each as it comes."""
    corpus = load_corpus(args.data, None, None, args.steps_per_bar)
    rows = (SWEEP, *space.fitting_families(corpus.spec), SEEDS_OWN, UNCODED) if ALL in args.row else args.row
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as scratch:
        work = Run(args, corpus, Path(scratch))
        if SWEEP in rows:
            place, figures = work.winner()
            record(args, work.scored(SWEEP, place, figures["minutes"], {"chosen_from": figures["chosen_from"]}))
        alone = [row for row in rows if row != SWEEP]
        jobs = {row: params_of(row, recorded(args), work.data) for row in alone}
        recording = Lock()

        def make(row: str) -> None:
            began = time.monotonic()
            place = work.alone(jobs[row], args.minutes)
            minutes = (time.monotonic() - began) / 60.0
            with recording:
                if place is None:
                    print(f"{row}: not recorded, for it has not trained an epoch that can be scored", flush=True)
                else:
                    record(args, work.scored(row, place, minutes, {}))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(make, alone))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="The published table with our rows.")
    parser.add_argument("--data", required=True, metavar="PATH", help="a piano-roll .json, or as of sweep.run")
    parser.add_argument("--steps-per-bar", type=int, metavar="N", help="as of sweep.run; hierarchical needs it")
    parser.add_argument("--minutes", type=float, default=40.0, help="of search and training (default: 40)")
    parser.add_argument(
        "--row",
        action="append",
        choices=(*ROWS, ALL),
        help=f"repeatable; {ALL}: what the data can take (default: {SWEEP})",
    )
    parser.add_argument("--iwae", type=int, default=32, metavar="K", help="draws of a window's codes (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep each row's checkpoint here")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.relative_to(ROOT)}/{NAME}.json")
    args = parser.parse_args(argv)
    args.row = args.row or [SWEEP]
    return args


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
