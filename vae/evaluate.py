"""What a checkpoint is worth, as JSON: its bounds, what its code does, and what its samples are like.

Command: `python -m vae.evaluate --best --split test --iwae 100`.
"""

import argparse
import json
import sys
from typing import Any

import torch

from vae import checkpoint
from vae.arguments import Parser, add_checkpoint_arguments, chosen_corpus, chosen_directory
from vae.bounds import TEST_SEED, VALIDATION_SEED, evaluate, importance_weighted_bound, reconstruction
from vae.distributions import compare
from vae.errors import UserError, exit_code
from vae.models.base import Vae
from vae.pieces import draw
from vae.splitting import SPLITS
from vae.windows import Songs

PIECES = 64
"""Samples whose statistics are compared with the test split's."""


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("python -m vae.evaluate", description="What a checkpoint is worth, as JSON.")
    add_checkpoint_arguments(parser)
    parser.add_argument("--split", choices=SPLITS, default="valid", help="default: valid")
    parser.add_argument("--iwae", type=int, metavar="K", help="also the importance-weighted bound with K samples")
    parser.add_argument("--data", help="score other data of the same encoding, and compare with those")
    return parser.parse_args(argv)


def _report(args: argparse.Namespace) -> dict[str, Any]:
    if args.iwae is not None and args.iwae < 1:
        raise UserError(f"--iwae must be at least 1, but got {args.iwae}.")
    directory = chosen_directory(args)
    loaded = checkpoint.load(directory)
    spec = loaded.spec
    corpus = chosen_corpus(loaded, args, directory)
    songs = Songs(corpus.splits[args.split], torch.device("cpu"))
    seed = TEST_SEED if args.split == "test" else VALIDATION_SEED
    report: dict[str, Any] = {"checkpoint": str(directory), "data": args.data or corpus.name, "split": args.split}
    report |= {"code_unit": code_unit(loaded.model), **evaluate(loaded.model, songs, seed)}
    if args.iwae:
        report |= {"iwae": importance_weighted_bound(loaded.model, songs, seed, args.iwae)}
        report |= {"iwae_samples": args.iwae}
    if spec.is_binary:
        report |= reconstruction(loaded.model, songs, seed)
    if spec.is_music:
        report |= {"music": compare(draw(loaded.model, PIECES, 1.0, 0), corpus)}
    return report


def code_unit(model: Vae) -> str:
    """What has a code of its own: `step`, `song`, or `window of N steps`."""
    if model.code_unit == "step":
        return "step"
    return "song" if model.scored > model.config.window else f"window of {model.config.window} steps"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: print_json(_report(args)))


def print_json(value: Any) -> None:
    """Writes a value to stdout as indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
