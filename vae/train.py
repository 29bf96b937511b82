"""One training run by hand, with the trainer of the sweep.

Command: `python -m vae.train --data bach --family recurrent --set latent_dim=64 --max-epochs 9 --out DIR`.
"""

import argparse
import sys
from itertools import count
from pathlib import Path

from vae import checkpoint
from vae.arguments import Parser, add_data_arguments, read_data, require_positive, require_seed
from vae.config import FAMILY_NAMES, Config, steps_as_wide
from vae.device import default_device, lacks_memory
from vae.errors import UserError, exit_code
from vae.models.registry import FAMILIES_WITH
from vae.rendering import FOLDERS
from vae.trainer import EPOCH_STEPS, MAX_EPOCHS, DivergedError, Trainer, TrainingData


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("python -m vae.train", description="Trains one model by hand.")
    add_data_arguments(parser)
    parser.add_argument("--family", choices=FAMILY_NAMES, default="dense", help="default: dense")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="a hyperparameter; repeatable; `--set help` names all",
    )
    parser.add_argument("--max-epochs", type=int, default=MAX_EPOCHS, metavar="N", help=f"default: {MAX_EPOCHS}")
    parser.add_argument(
        "--epoch-steps",
        type=int,
        metavar="N",
        help=f"time steps in an epoch (default: {EPOCH_STEPS}; of rows wider than a step of music, fewer)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/train"),
        metavar="DIR",
        help="default: results/train; an earlier training there is replaced, unless it has more epochs",
    )
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    if "help" in args.settings:
        sys.stdout.write("".join(f"{line}\n" for line in Config.words()))
        sys.stdout.write("Some defaults are others for a family and for the data.\n")
        return
    require_positive(args, "max_epochs", "epoch_steps", "steps_per_beat", "steps_per_bar")
    require_seed(args)
    if (earlier := _replaced(args.out, args.max_epochs)) is not None:
        sys.stdout.write(f"{args.out}: holds {earlier}, which is replaced once an epoch is trained\n")
    corpus = read_data(args)
    epoch_steps = args.epoch_steps or steps_as_wide(corpus.spec, EPOCH_STEPS)
    config = Config.parse(corpus.spec, args.family, args.settings, args.max_epochs * epoch_steps)
    for line in _unused(config.family, args.settings):
        sys.stdout.write(f"{line}\n")
    device = default_device()
    sys.stdout.write(f"training {config.family} on this machine ({device})\n")
    try:
        trainer = Trainer(config, TrainingData.load(corpus, device), args.seed, epoch_steps)
        for _ in range(args.max_epochs):
            metrics = trainer.train_epoch()
            _save(trainer, args.out)
            sys.stdout.write(
                f"epoch {trainer.epoch:3d}  val_elbo {metrics['val_elbo']:.3f}  kl {metrics['kl']:.3f}  "
                f"code_gain {metrics['code_gain']:.3f}  {metrics['train_seconds']:.1f} s\n"
            )
            sys.stdout.flush()
    except DivergedError as error:
        raise UserError(f"{error}; lower learning_rate or grad_clip.") from None
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise UserError("memory runs out; lower batch_steps, window, or the model's widths and depths.") from None
    assert trainer.best is not None
    best = trainer.best.metrics
    sys.stdout.write(f"best: epoch {best['epoch']:.0f}, val_elbo {best['val_elbo']:.3f}, in {args.out}\n")


def _unused(family: str, settings: list[str]) -> list[str]:
    """A line on each hyperparameter that is set but means nothing to the family."""
    names = {setting.partition("=")[0]: None for setting in settings}
    return [
        f"--set {name} changes nothing: it is of {', '.join(FAMILIES_WITH[name])}, not of {family}"
        for name in names
        if family not in FAMILIES_WITH.get(name, (family,))
    ]


def _replaced(directory: Path, epochs: int) -> str | None:
    """What a training of so many epochs takes the place of, in words; None: of nothing.

    Raises:
        UserError: of something else than a checkpoint, or of more epochs.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    try:
        family = checkpoint.read_json(directory / checkpoint.CONFIG)["config"]["family"]
    except (UserError, LookupError, TypeError):
        raise UserError(
            f"{directory}: holds something else than a checkpoint, which would be lost; pass another --out."
        ) from None
    metrics = checkpoint.read_json(directory / checkpoint.METRICS)
    final = not (directory / checkpoint.COUNTERS).exists()
    trained = (metrics if final else checkpoint.read_json(directory / checkpoint.COUNTERS))["epoch"]
    kind = f"a checkpoint of epoch {trained:.0f}" if final else f"a training of {trained} epoch{'s' * (trained != 1)}"
    what = f"{kind} ({family}, val_elbo {metrics['val_elbo']:.3f})"
    if trained > epochs:
        raise UserError(f"{directory}: holds {what}, more than --max-epochs {epochs}; pass another --out.")
    return what


def _save(trainer: Trainer, directory: Path) -> None:
    """Replaces the checkpoint in `directory`; atomically."""
    try:
        if trainer.epoch == 1:
            _set_aside(directory)
        with checkpoint.replacing(directory) as scratch:
            trainer.save(scratch)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); pass another --out.") from None


def _set_aside(directory: Path) -> None:
    """Gives pieces of an earlier model other names, lest they pass for the new one's: samples-1 ..."""
    for name in FOLDERS:
        if (directory / name).exists():
            free = next(number for number in count(1) if not (directory / f"{name}-{number}").exists())
            (directory / name).rename(directory / f"{name}-{free}")
            sys.stdout.write(f"{directory / name}: of the earlier model, now {name}-{free}\n")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
