"""What a sweep is to be: the settings and data of a new one, or of one to go on with."""

import argparse
import contextlib
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sweep.arguments import check_finals
from sweep.begun import read_settings
from sweep.results import SweepFolder
from sweep.settings import FINAL_SEEDS, Settings
from sweep.space import first_points, fitting_families
from sweep.uploads import fetch
from vae.config import kl_as_wide, steps_as_wide
from vae.corpus import BACH, Corpus, existing, load_corpus, read_saved
from vae.errors import UserError
from vae.trainer import EPOCH_STEPS, MIN_KL


def default_name(data: str) -> str:
    """Of a sweep over some data that begins now."""
    stem = re.sub(r"[^\w.-]+", "-", Path(data).resolve().stem)
    return f"{stem.lstrip('-.') or 'sweep'}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _lasting(data: str) -> str:
    """What names the same data whatever the working directory."""
    return data if data == BACH else str(existing(data, "Pass another --data.").resolve())


def _new_settings(args: argparse.Namespace, corpus: Corpus) -> Settings:
    return Settings(
        name=args.name or default_name(args.data),
        data=_lasting(args.data),
        spec=corpus.spec,
        fingerprint=corpus.fingerprint,
        families=tuple(dict.fromkeys(args.family or fitting_families(corpus.spec))),
        max_epochs=args.max_epochs,
        epoch_steps=args.epoch_steps or steps_as_wide(corpus.spec, EPOCH_STEPS),
        seed=args.seed,
        min_kl=kl_as_wide(corpus.spec, MIN_KL) if args.min_kl is None else args.min_kl,
        scheduler=args.scheduler,
        final_seeds=args.final_seeds or FINAL_SEEDS,
        final_epochs=args.final_epochs,
        warm_start=tuple(dict.fromkeys(args.warm_start)),
    )


def _read_settings(args: argparse.Namespace, journal: Path) -> Settings:
    """The settings of a sweep to go on with; its final runs may be others than before."""
    settings = read_settings(journal, journal.parent.name)
    check_finals(args, args.final_seeds or settings.final_seeds, settings.max_epochs)
    return replace(
        settings,
        final_seeds=args.final_seeds or settings.final_seeds,
        final_epochs=args.final_epochs or settings.final_epochs,
    )


def _fetched(results: str, name: str) -> SweepFolder:
    """The folder of a sweep, brought here if it is in an object store; without a journal if there is no such sweep."""
    folder = SweepFolder(results, name)
    fetch(folder)
    return folder


def _kept(folder: SweepFolder) -> Corpus:
    """The data that a sweep keeps.

    Raises:
        UserError: they can't be read.
    """
    try:
        return read_saved(folder.data)
    except UserError:
        raise UserError(
            f"{folder.data}: damaged, or kept by another version of the code; pass --data PLACE, where the data were "
            "read from, or check out the version that the sweep was begun with."
        ) from None


def prepare(args: argparse.Namespace) -> tuple[Settings, Corpus]:
    """The settings and data of a new sweep, or of one to go on with."""
    if args.resume is None:
        corpus = load_corpus(args.data, args.encoding, args.steps_per_beat, args.steps_per_bar)
        settings = _new_settings(args, corpus)
        first_points(settings.task)  # refuses families that the data can't have
        folder = _fetched(args.results, settings.name)
        if folder.journal.exists():
            raise UserError(
                f"{args.results}/{settings.name}: a sweep of this name exists; go on with it by {folder.again}, or "
                "pass another --name."
            )
        return settings, corpus
    folder = _fetched(args.results, args.resume)
    with folder.driven() if folder.journal.exists() else contextlib.nullcontext():  # for the journal is mended
        settings = _read_settings(args, folder.journal)
    spec = settings.spec
    if "data" in args.given:  # the same, but elsewhere
        settings = replace(settings, data=_lasting(args.data))
    encoding = spec.encoding if spec.is_music else None
    if folder.data.exists() and "data" not in args.given:
        corpus = _kept(folder)
    else:
        corpus = load_corpus(settings.data, encoding, spec.steps_per_beat, spec.steps_per_bar)
    if corpus.fingerprint != settings.fingerprint:
        raise UserError(
            f"{settings.data}: has changed since the sweep {settings.name} began, or the code that reads it has; start "
            "a new sweep, or check out the version that it was begun with."
        )
    return settings, corpus
