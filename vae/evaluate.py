"""What a checkpoint is worth, as JSON: its bounds, what its code does, and what its samples are like.

Command: `python -m vae.evaluate --best --split test --iwae 100`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from vae import checkpoint
from vae.arguments import add_checkpoint_arguments, chosen_directory, kept_data
from vae.bounds import TEST_SEED, VALIDATION_SEED, evaluate, importance_weighted_bound, reconstruction
from vae.corpus import load_corpus
from vae.distributions import compare
from vae.errors import UserError, exit_code
from vae.models.base import Vae
from vae.sample import draw
from vae.windows import Songs

PIECES = 64
"""Samples whose statistics are compared with the test split's."""


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m vae.evaluate", description="What a checkpoint is worth, as JSON.")
    add_checkpoint_arguments(parser)
    parser.add_argument("--split", choices=("train", "valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--iwae", type=int, metavar="K", help="also the importance-weighted bound with K samples")
    parser.add_argument("--data", help="score other data of the same encoding (default: what it was trained on)")
    return parser.parse_args(argv)


def _own_data(record: dict[str, Any], args: argparse.Namespace, directory: Path) -> str:
    """What a checkpoint was trained on, if it is still where it was, or kept by its sweep."""
    name = str(record["data"])
    if name != "bach" and not Path(name).exists():
        if (kept := kept_data(args, directory)) is not None:
            return str(kept)
        raise UserError(
            f"{name}: the data that the checkpoint was trained on are not here; pass their place as --data."
        )
    return name


def _report(args: argparse.Namespace) -> dict[str, Any]:
    if args.iwae is not None and args.iwae < 1:
        raise UserError(f"--iwae must be at least 1, but got {args.iwae}.")
    directory = chosen_directory(args)
    loaded = checkpoint.load(directory)
    spec = loaded.spec
    data = args.data or _own_data(loaded.record, args, directory)
    corpus = load_corpus(data, spec.encoding if spec.is_music else None, spec.steps_per_beat, spec.steps_per_bar)
    if args.data is None and corpus.fingerprint != loaded.record["fingerprint"]:
        raise UserError(f"{data}: no longer what the checkpoint was trained on; pass --data {data} to score it anyway.")
    if (corpus.spec.encoding, corpus.spec.features) != (spec.encoding, spec.features):
        raise UserError(
            f"{data}: the checkpoint scores {spec.encoding} of {spec.features} features, "
            f"but this is {corpus.spec.encoding} of {corpus.spec.features}."
        )
    songs = Songs(corpus.splits[args.split], torch.device("cpu"))
    seed = TEST_SEED if args.split == "test" else VALIDATION_SEED
    report: dict[str, Any] = {"checkpoint": str(directory), "data": data, "split": args.split}
    report |= {"code_unit": code_unit(loaded.model), **evaluate(loaded.model, songs, seed)}
    if args.iwae:
        report |= {"iwae": importance_weighted_bound(loaded.model, songs, seed, args.iwae)}
        report |= {"iwae_samples": args.iwae}
    if spec.is_binary:
        report |= reconstruction(loaded.model, songs, seed)
    if spec.is_music:
        report |= {"music": compare(draw(loaded.model, spec, PIECES, 1.0, 0), corpus)}
    return report


def code_unit(model: Vae) -> str:
    """What has a code of its own: `step`, `song`, or `window of N steps`."""
    if model.code_unit == "step":
        return "step"
    window, longest = model.config.window, model.spec.longest_song
    return "song" if window == longest else f"window of {window} steps"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: print_json(_report(args)))


def print_json(value: Any) -> None:
    """Writes a value to stdout as indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
