"""Arguments that several commands share, and what they choose."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from vae.checkpoint import CONFIG, METRICS, Checkpoint, is_whole
from vae.corpus import BACH, Corpus, is_to_be_encoded, load_corpus
from vae.encoding import FEATURES
from vae.errors import UserError
from vae.files import is_locked
from vae.store import DATA, LATEST, LOCK, Store, copy_of, is_remote, pointed_elsewhere

_REPLACED_SECONDS, _PAUSE_SECONDS = 60.0, 2.0
"""How long a winner in an object store may take to be replaced, and between looks."""


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as `vae.errors.exit_code` does, where argparse shows all options before it."""

    def error(self, message: str) -> NoReturn:
        """Ends the command with exit code 2."""
        told = message.removeprefix("argument ")
        told = told.replace("expected one argument", "the value is missing, or begins with '-'")
        self.exit(2, f"error: {told}; see --help.\n")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of data, shared by training and sweeping."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default=BACH,
        metavar="NAME|PATH",
        help=f"{BACH} (default); a folder of MIDI, MusicXML or ABC; a piano-roll .json; an .npy or .npz",
    )
    group.add_argument("--encoding", choices=FEATURES, help="default: roll_onset for notes")
    group.add_argument("--steps-per-beat", type=int, metavar="N", help="default: 4 for files of notes, else 1")
    group.add_argument("--steps-per-bar", type=int, metavar="N", help="default: the metre of the files")


def read_data(args: argparse.Namespace) -> Corpus:
    """Loads what `add_data_arguments` asked for, and tells what was found."""
    corpus = load_corpus(args.data, args.encoding, args.steps_per_beat, args.steps_per_bar)
    for line in corpus.report:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return corpus


def require_positive(args: argparse.Namespace, *names: str) -> None:
    """Refuses numbers under 1.

    Raises:
        UserError: naming the flag.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, but got {value}.")


def require_seed(args: argparse.Namespace) -> None:
    """Refuses a seed that a generator of random numbers would.

    Raises:
        UserError: it is negative or too large.
    """
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must lie in 0..{2**32 - 1}, but got {args.seed}.")


def _default_results() -> str:
    return os.environ.get("SWEEP_RESULTS") or "results"


def local_results() -> Path:
    """Where commands on this machine look for sweeps unless told, or `results` if that is in an object store."""
    place = _default_results()
    return Path("results" if is_remote(place) else place)


def add_results_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the place of sweeps to a command."""
    parser.add_argument(
        "--results",
        default=_default_results(),
        metavar="PLACE",
        help="of sweeps: a folder, s3://... or gs://... (default: $SWEEP_RESULTS, else results)",
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of a checkpoint to a command."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--best", action="store_true", help="of the newest sweep that has one (default)")
    choice.add_argument("--sweep", metavar="NAME", help="the best of this sweep")
    choice.add_argument("--checkpoint", type=Path, metavar="DIR", help="this checkpoint")
    add_results_argument(parser)


def chosen_directory(args: argparse.Namespace) -> Path:
    """The folder of the checkpoint that the arguments choose.

    Raises:
        UserError: there is none.
    """
    if args.checkpoint is not None:
        return _with_checkpoint(args.checkpoint)
    name = _sweep(args)
    if (place := _object_store(args)) is not None:
        return _fetch_best(Store(place), name)
    results = Path(args.results)
    if name is None:
        return newest_best(results)
    best: Path = results / name / "best"
    if not (best / METRICS).exists():
        raise UserError(f"{best}: no best checkpoint of a sweep {name!r}; see {results}/ for names.")
    return best


def _sweep(args: argparse.Namespace) -> str | None:
    """The name of the sweep that is asked for, as a shell completes it or not; None: the newest that has a best."""
    name = (args.sweep or "").rstrip("/")
    return None if name in ("", LATEST) else str(name)


def _with_checkpoint(path: Path) -> Path:
    """The folder, if it is one of a checkpoint; of another path the error names the checkpoint in or around it."""
    if (path / CONFIG).exists():
        return path
    near = next((folder for folder in (path / "best", path.parent) if (folder / CONFIG).exists()), None)
    what = "is a file" if path.is_file() else f"no checkpoint here ({CONFIG} is missing)"
    raise UserError(f"{path}: {what}; pass {near or 'a folder such as results/NAME/best'}.")


def chosen_corpus(loaded: Checkpoint, args: argparse.Namespace, directory: Path) -> Corpus:
    """The data that `--data` names, as the checkpoint's model takes them; without it those that it was trained on.

    Args:
        loaded: the checkpoint.
        args: with the choice of it, and `data`.
        directory: where it lies.

    Raises:
        UserError: they are not there, no longer the same, or of another encoding.
    """
    spec, data = loaded.spec, args.data or _own_data(loaded, args, directory)
    encoding = spec.encoding if spec.is_music and is_to_be_encoded(data) else None
    corpus = load_corpus(data, encoding, spec.steps_per_beat, spec.steps_per_bar)
    if args.data is None and corpus.fingerprint != loaded.record["fingerprint"]:
        raise UserError(
            f"{data}: no longer what the checkpoint was trained on, or read by other code; pass --data {data} to take "
            "it anyway."
        )
    if (corpus.spec.encoding, corpus.spec.features) != (spec.encoding, spec.features):
        raise UserError(
            f"{data}: the model takes {spec.encoding} of {spec.features} features, but this is "
            f"{corpus.spec.encoding} of {corpus.spec.features}; pass data like those that it was trained on."
        )
    return corpus


def _own_data(loaded: Checkpoint, args: argparse.Namespace, directory: Path) -> str:
    """What a checkpoint was trained on, if it is still where it was, or kept by its sweep."""
    name = str(loaded.record["data"])
    if name != BACH and not Path(name).exists():
        if (kept := _kept_data(args, directory)) is not None:
            return str(kept)
        raise UserError(
            f"{name}: the data that the checkpoint was trained on are not here; pass their place as --data."
        )
    return name


def _kept_data(args: argparse.Namespace, directory: Path) -> Path | None:
    """The data that a sweep keeps beside its best checkpoint, which the arguments chose; None if it keeps none."""
    path, place = directory.parent / DATA, None if args.checkpoint is not None else _object_store(args)
    if place is not None and not path.exists():
        Store(place).fetch(f"{directory.parent.name}/{DATA}", copy_of(place))
    return path if path.exists() else None


def _object_store(args: argparse.Namespace) -> str | None:
    """Where the sweeps are, if it is no folder of this machine: as asked for, or a cluster's."""
    if is_remote(args.results):
        return str(args.results)
    elsewhere = pointed_elsewhere(Path(args.results), _sweep(args), f"best/{METRICS}")
    return None if elsewhere is None else elsewhere[0]


def _fetch_best(store: Store, name: str | None) -> Path:
    """A copy of `best/` of a sweep in an object store, or of the newest that has one."""
    latest = (store.read(LATEST) or b"").decode()
    times = {sweep: store.modified(f"{sweep}/best/{METRICS}") for sweep in ([name] if name else store.folders())}
    found = max((sweep for sweep in times if times[sweep]), key=lambda s: (s == latest, times[s]), default=None)
    if found is not None:
        here = copy_of(store.place) / found
        if not is_locked(here / LOCK):  # else the sweep runs from here, and this is what it copies there
            _fetch_whole(store, f"{found}/best")
        return here / "best"
    there = ", ".join(sweep for sweep in store.folders() if not sweep.startswith("."))
    asked = "" if name is None else f" {name!r}"
    raise UserError(f"{store.place}: no sweep{asked} with a best checkpoint; there are: {there or 'none'}.")


def _fetch_whole(store: Store, best: str) -> None:
    """Copies `best/` of a sweep, again while it is another winner's in part: its driver copies file by file.

    Raises:
        UserError: it stays so.
    """
    deadline = time.monotonic() + _REPLACED_SECONDS
    while True:
        store.fetch(best, copy_of(store.place))
        if is_whole(copy_of(store.place) / best):
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"{store.at(best)}: a new winner has come in part; try again, or, if its sweep was killed, --resume it."
            )
        time.sleep(_PAUSE_SECONDS)


def newest_best(results: Path) -> Path:
    """`best/` of the newest sweep that has one.

    Raises:
        UserError: no sweep has one.
    """
    found = sorted(results.glob(f"*/best/{METRICS}"), key=lambda path: path.stat().st_mtime)
    latest = (results / LATEST).resolve() / "best"
    if (latest / METRICS).exists():
        return latest
    if not found:
        raise UserError(
            f"{results}: no sweep with a best checkpoint; run `python -m sweep.run` first, or pass --results."
        )
    return found[-1].parent
