"""The metric: bounds on the log-likelihood of a split, always with beta = 1 and free_bits = 0.

    elbo = sum over songs of (log_likelihood - kl) / number of steps        nats per time step, higher is better

Every step counts once. Noise is keyed by (seed, song, unit), so it depends neither on batch size nor on device.
Shape letters: B batch, N windows of the split, Z latent dimensions.

Command: `python -m vae.evaluate --best` prints the bounds of a checkpoint as JSON.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae import checkpoint
from vae.arguments import add_checkpoint_arguments, chosen_directory
from vae.corpus import Split, load_corpus
from vae.encoding import DataSpec
from vae.errors import UserError, exit_code
from vae.loss import kl_to_standard_normal
from vae.models.base import Vae
from vae.models.likelihood import Moments
from vae.windows import Plan, Songs

VALIDATION_SEED = 0
TEST_SEED = 1
ACTIVE_VARIANCE = 0.01
"""A dimension is active if Var_x E[z|x] exceeds this (Burda et al. 2015)."""
KL_PENALTY = 10.0
_BATCH = 256  # windows evaluated at once; results do not depend on it


def rank_value(metrics: Mapping[str, float], min_kl: float) -> float:
    """What trials are ranked by: `val_elbo - 10 * max(0, min_kl - kl)`, higher is better."""
    return metrics["val_elbo"] - KL_PENALTY * max(0.0, min_kl - metrics["kl"])


def is_feasible(metrics: Mapping[str, float], min_kl: float) -> bool:
    """Whether the code carries at least `min_kl` nats a step and the decoder uses half of that."""
    return metrics["kl"] >= min_kl and metrics["code_gain"] >= min_kl / 2


def rank_key(metrics: Mapping[str, float], min_kl: float) -> tuple[bool, float]:
    """What the best epoch, and the winner of a sweep, has most of: feasible first, then rank value."""
    return is_feasible(metrics, min_kl), rank_value(metrics, min_kl)


def _generators(seed: int, units: tuple[tuple[int, int], ...]) -> list[np.random.Generator]:
    """A generator for each (song, unit), apart from all others."""
    return [np.random.Generator(np.random.Philox(key=[seed, song], counter=[0, 0, 0, unit])) for song, unit in units]


def _noise(generators: list[np.random.Generator], latent_dim: int) -> Tensor:
    """The next standard normal noise, [N, Z], a row from each generator."""
    return torch.from_numpy(np.stack([g.standard_normal(latent_dim, dtype=np.float32) for g in generators]))


@lru_cache(maxsize=4)  # every epoch of a trial asks for the same
def _first_noise(seed: int, units: tuple[tuple[int, int], ...], latent_dim: int) -> Tensor:
    return _noise(_generators(seed, units), latent_dim)


def _units(plan: Plan) -> tuple[tuple[int, int], ...]:
    """(song, number of the window within it) for each window."""
    first = torch.searchsorted(plan.song, plan.song)
    return tuple(zip(plan.song.tolist(), (torch.arange(len(plan)) - first).tolist(), strict=True))


def _batches(plan: Plan) -> Iterator[slice]:
    return (slice(i, i + _BATCH) for i in range(0, len(plan), _BATCH))


def _encode(model: Vae, songs: Songs, plan: Plan) -> tuple[Tensor, Tensor]:
    """Mean and std of every window's posterior, [N, Z] each."""
    window = model.config.window
    parts = [model.encode(songs.batch(plan[part], window)) for part in _batches(plan)]
    return torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])


def _log_likelihood(model: Vae, songs: Songs, plan: Plan, codes: list[Tensor]) -> list[Tensor]:
    """Log p(x|z) of every window for each set of codes, [N] each, in nats; batches are gathered once."""
    out: list[list[Tensor]] = [[] for _ in codes]
    for part in _batches(plan):
        batch = songs.batch(plan[part], model.config.window)
        for z, rows in zip(codes, out, strict=True):
            rows.append(model.log_likelihood(batch, z[part]).double())
    return [torch.cat(rows).cpu() for rows in out]


@torch.no_grad()
def evaluate(model: Vae, songs: Songs, seed: int) -> dict[str, float]:
    """The bound of one split and what the code does.

    Returns:
        `elbo`, `log_likelihood`, `kl`, `code_gain` in nats per time step; `elbo_per_song`, the mean over songs of
        (song's ELBO / its steps); `active_units`, a count of latent dimensions.
    """
    training = model.training
    model.eval()
    plan = songs.partition(model.config.window)
    mean, std = _encode(model, songs, plan)
    noise = _first_noise(seed, _units(plan), model.config.latent_dim).to(mean.device)
    z = mean + std * noise
    # Half the split away: mostly another song, so that neighbours' shared key doesn't hide what a code says.
    other = z.roll(max(1, len(z) // 2), dims=0)
    own, others = _log_likelihood(model, songs, plan, [z, other])
    kl = kl_to_standard_normal(mean, std).sum(1).double().cpu()
    model.train(training)
    by_song = torch.zeros(len(songs.lengths), dtype=torch.float64).index_add_(0, plan.song, own - kl)
    steps = songs.steps
    return {
        "elbo": float((own - kl).sum()) / steps,
        "elbo_per_song": float((by_song / songs.lengths).mean()),
        "log_likelihood": float(own.sum()) / steps,
        "kl": float(kl.sum()) / steps,
        "code_gain": float((own - others).sum()) / steps,
        "active_units": int((mean.var(0) > ACTIVE_VARIANCE).sum()) if len(mean) > 1 else 0,
    }


@torch.no_grad()
def importance_weighted_bound(model: Vae, songs: Songs, seed: int, samples: int) -> float:
    """The importance-weighted bound (Burda et al. 2015) with K = `samples` a unit, nats per time step.

    Memory does not grow with K.
    """
    training = model.training
    model.eval()
    plan = songs.partition(model.config.window)
    generators = _generators(seed, _units(plan))
    mean, std = _encode(model, songs, plan)
    total = torch.full((len(plan),), -math.inf, dtype=torch.float64)
    for _ in range(samples):
        noise = _noise(generators, model.config.latent_dim).to(mean.device)
        z = mean + std * noise
        # log p(z) - log q(z|x); the constants of the two normals cancel.
        log_ratio = (0.5 * (noise.square() - z.square()) + std.log()).sum(1).double().cpu()
        (own,) = _log_likelihood(model, songs, plan, [z])
        total = torch.logaddexp(total, own + log_ratio)
    model.train(training)
    return float((total - math.log(samples)).sum()) / songs.steps


def marginal_elbo(moments: Moments, split: Split, spec: DataSpec) -> float:
    """The baseline without a model: independent features fitted on train, nats per time step."""
    mean, std = moments
    if spec.is_binary:
        share = split.values.mean(axis=0, dtype=np.float64)
        return float((share * np.log(mean) + (1.0 - share) * np.log1p(-mean)).sum())
    z = (split.values.astype(np.float64) - mean) / std
    return float((-0.5 * np.square(z) - np.log(std) - 0.5 * math.log(2.0 * math.pi)).sum(axis=1).mean())


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m vae.evaluate", description="Bounds of a checkpoint, as JSON.")
    add_checkpoint_arguments(parser)
    parser.add_argument("--split", choices=("train", "valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--iwae", type=int, metavar="K", help="also the importance-weighted bound with K samples")
    parser.add_argument("--data", help="score other data of the same encoding (default: what it was trained on)")
    return parser.parse_args(argv)


def _own_data(record: dict[str, Any]) -> str:
    """What a checkpoint was trained on, if it is still where it was."""
    name = str(record["data"])
    if name != "bach" and not Path(name).exists():
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
    data = args.data or _own_data(loaded.record)
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
    report |= evaluate(loaded.model, songs, seed)
    if args.iwae:
        report |= {"iwae": importance_weighted_bound(loaded.model, songs, seed, args.iwae)}
        report |= {"iwae_samples": args.iwae}
    return report


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: print_json(_report(args)))


def print_json(value: Any) -> None:
    """Writes a value to stdout as indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
