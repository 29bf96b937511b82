"""The metric: bounds on the log-likelihood of a split, always with beta = 1 and free_bits = 0.

    elbo = sum over songs of (log_likelihood - kl) / number of steps        nats per time step, higher is better

Every step counts once. Noise is keyed by (seed, song, window), so it depends neither on batch size nor on device.
Shape letters: B batch, N windows of the split, R codes of the split (a window or a step each), Z latent dimensions.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vae.config import steps_as_wide
from vae.corpus import Split
from vae.encoding import DataSpec
from vae.models.base import Vae, in_use
from vae.models.likelihood import Moments
from vae.windows import Batch, Plan, Songs, in_batches

VALIDATION_SEED = 0
TEST_SEED = 1
ACTIVE_VARIANCE = 0.01
"""A dimension is active if Var_x E[z|x] exceeds this (Burda et al. 2015)."""
_BATCH_STEPS = 2048  # evaluated at once, padding included; bounds do not depend on it
_ON_GPU = 8  # times as many, of music: of other binary data most features may be on, each of which takes memory
_WRITTEN = 2**15
"""Steps that are written at once, such as eight of the longest songs; what is drawn depends on it, but on no device."""
_FOREIGN = 1000  # added to the seed of a draw from the prior that stands for another code

Units = tuple[tuple[int, int, int], ...]
"""(song, number of the window within it, codes) of each window."""


class _Codes:
    """Where the codes of a split's windows lie in one table [R, Z]: a row a window, or a row a step."""

    def __init__(self, plan: Plan, unit: str) -> None:
        self.counts = plan.length if unit == "step" else torch.ones_like(plan.length)
        self._first = self.counts.cumsum(0) - self.counts
        self._unit = unit
        first_of_song = torch.searchsorted(plan.song, plan.song)
        number = torch.arange(len(plan)) - first_of_song
        self.units: Units = tuple(zip(plan.song.tolist(), number.tolist(), self.counts.tolist(), strict=True))

    def _rows(self, windows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Rows of some windows, [B, steps or 1], and which of them are real."""
        offsets = torch.arange(steps if self._unit == "step" else 1)
        return self._first[windows, None] + offsets, offsets < self.counts[windows, None]

    def take(self, table: Tensor, windows: Tensor, steps: int) -> Tensor:
        """Codes of some windows out of the table, as a model takes them: [B, Z] or [B, T, Z]; zero where padded."""
        rows, real = self._rows(windows, steps)
        device = table.device
        codes = table[(rows * real).to(device)] * real[..., None].to(device)
        return codes if self._unit == "step" else codes[:, 0]

    def put(self, table: Tensor, windows: Tensor, steps: int, codes: Tensor) -> None:
        """The opposite of `take`."""
        rows, real = self._rows(windows, steps)
        codes = codes if self._unit == "step" else codes[:, None]
        table[rows[real].to(table.device)] = codes[real.to(codes.device)].to(table)


def _generators(seed: int, units: Units) -> list[np.random.Generator]:
    """A generator for each window, apart from all others."""
    return [np.random.Generator(np.random.Philox(key=[seed, song], counter=[0, 0, 0, n])) for song, n, _ in units]


def _noise(generators: list[np.random.Generator], units: Units, latent_dim: int) -> Tensor:
    """The next standard normal noise, [R, Z], from each window's generator."""
    sizes = [(codes, latent_dim) for _, _, codes in units]
    drawn = [g.standard_normal(size, dtype=np.float32) for g, size in zip(generators, sizes, strict=True)]
    return torch.from_numpy(np.concatenate(drawn))


@lru_cache(maxsize=1)  # every epoch of a trial asks for the same
def _first_noise(seed: int, units: Units, latent_dim: int) -> Tensor:
    return _noise(_generators(seed, units), units, latent_dim)


def _batches(model: Vae, songs: Songs, plan: Plan) -> Iterator[tuple[Tensor, Batch]]:
    """All windows in batches: their numbers, and they themselves."""
    many = model.spec.is_music and model.device().type != "cpu"
    steps = _BATCH_STEPS * (_ON_GPU if many else 1)
    for windows in in_batches(plan, steps_as_wide(model.spec, steps), model.padded_to):
        part = plan[windows]
        yield windows, songs.batch(part, model.padded_to(part.longest))


def evaluate(model: Vae, songs: Songs, seed: int) -> dict[str, float]:
    """The bound of one split and what the code does.

    Returns:
        `elbo`, `log_likelihood`, `kl`, `code_gain` in nats per time step; `elbo_per_song`, the mean over songs of
        (song's ELBO / its steps); `active_units`, a count of latent dimensions.
    """
    with in_use(model):
        return _evaluate(model, songs, seed)


def _evaluate(model: Vae, songs: Songs, seed: int) -> dict[str, float]:
    plan = songs.partition(model.scored)
    codes, steps = _Codes(plan, model.code_unit), songs.steps
    noise = _first_noise(seed, codes.units, model.config.latent_dim).to(model.device())
    drawn, said = torch.empty_like(noise), torch.empty_like(noise)
    own, kl, others = (torch.empty(len(plan), dtype=torch.float64) for _ in range(3))
    for windows, batch in _batches(model, songs, plan):
        longest = batch.x.shape[1]
        log_likelihood, code = model.terms(batch, codes.take(noise, windows, longest))
        own[windows], kl[windows] = log_likelihood.double().cpu(), code.kl.double().cpu()
        codes.put(drawn, windows, longest, code.z)
        codes.put(said, windows, longest, code.posterior.mean)
    # Half the split away: mostly another song, so that neighbours' shared key doesn't hide what a code says.
    other = drawn.roll(len(drawn) // 2, dims=0)
    if len(drawn) == 1:  # there is no other
        other = _first_noise(seed + _FOREIGN, codes.units, model.config.latent_dim).to(drawn)
    for windows, batch in _batches(model, songs, plan):
        z_other = codes.take(other, windows, batch.x.shape[1])
        others[windows] = model.log_likelihood(batch, z_other).double().cpu()
    by_song = torch.zeros(len(songs.lengths), dtype=torch.float64).index_add_(0, plan.song, own - kl)
    return {
        "elbo": float((own - kl).sum()) / steps,
        "elbo_per_song": float((by_song / songs.lengths).mean()),
        "log_likelihood": float(own.sum()) / steps,
        "kl": float(kl.sum()) / steps,
        "code_gain": float((own - others).sum()) / steps,
        "active_units": int((said.var(0) > ACTIVE_VARIANCE).sum()) if len(said) > 1 else 0,
    }


def importance_weighted_bound(model: Vae, songs: Songs, seed: int, samples: int) -> float:
    """The importance-weighted bound (Burda et al. 2015), nats per time step; K = `samples` draws of a window's codes.

        log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)

    Memory does not grow with K.
    """
    with in_use(model):
        plan = songs.partition(model.scored)
        codes = _Codes(plan, model.code_unit)
        generators = _generators(seed, codes.units)
        total = torch.full((len(plan),), -math.inf, dtype=torch.float64)
        for _ in range(samples):
            noise = _noise(generators, codes.units, model.config.latent_dim).to(model.device())
            for windows, batch in _batches(model, songs, plan):
                terms = model.terms(batch, codes.take(noise, windows, batch.x.shape[1]))
                log_weight = (terms.log_likelihood + terms.code.log_ratio).double().cpu()
                total[windows] = torch.logaddexp(total[windows], log_weight)
    return float((total - math.log(samples)).sum()) / songs.steps


def reconstruction(model: Vae, songs: Songs, seed: int) -> dict[str, float]:
    """How often a step comes back exactly, all keys right, from the mean of its window's posterior; binary data.

    As in MusicVAE (Roberts et al. 2018): `accuracy_teacher_forced`, each key's more likely value given the true steps
    and keys before it; `accuracy_sampled`, drawn one after another at temperature 1. Shares of the real steps.
    """
    plan = songs.partition(model.scored)
    codes = _Codes(plan, model.code_unit)
    said = torch.empty(int(codes.counts.sum()), model.config.latent_dim, device=model.device())
    right = torch.zeros(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with in_use(model):
        for windows, batch in _batches(model, songs, plan):
            z = model.posterior_of(batch).mean
            codes.put(said, windows, batch.x.shape[1], z)
            h = model.states(batch, z).flatten(0, 1)
            likely = (model.head.logits(h, batch.x.flatten(0, 1)) > 0).view(batch.x.shape)
            right[0] += _exact(likely, batch)
        # Step after step: several long songs take no longer than one.
        for windows in in_batches(plan, steps_as_wide(model.spec, _WRITTEN), lambda n: max(n, model.config.shown)):
            batch = songs.batch(plan[windows], steps := plan[windows].longest)
            drawn = model.decode(codes.take(said, windows, steps), steps, 1.0, generator, batch)
            right[1] += _exact(drawn, batch)
    teacher_forced, sampled = (right / songs.steps).tolist()
    return {"accuracy_teacher_forced": teacher_forced, "accuracy_sampled": sampled}


def _exact(x: Tensor, batch: Batch) -> Tensor:
    """The real steps of a batch that [B, T, D] has right."""
    return ((x == batch.x).all(2) & batch.mask).sum().cpu()


def marginal_elbo(moments: Moments, split: Split, spec: DataSpec) -> float:
    """The baseline without a model: independent features fitted on train, nats per time step."""
    mean, std, _ = moments
    if spec.is_binary:
        share = split.values.mean(axis=0, dtype=np.float64)
        return float((share * np.log(mean) + (1.0 - share) * np.log1p(-mean)).sum())
    z = (split.values.astype(np.float64) - mean) / std
    return float((-0.5 * np.square(z) - np.log(std) - 0.5 * math.log(2.0 * math.pi)).sum(axis=1).mean())
