"""The trainer that the command line, the sweep and the tests share: one call trains one epoch."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae import checkpoint
from vae.bounds import VALIDATION_SEED, evaluate
from vae.config import Config, kl_as_wide, steps_as_wide
from vae.corpus import SPLITS, Corpus
from vae.device import gains_by_bf16, lacks_memory, release_memory
from vae.errors import OtherRunError
from vae.graphs import Graphs
from vae.loss import objective
from vae.models.likelihood import Moments, moments_of
from vae.models.registry import build_model
from vae.optimizer import Optimizer
from vae.ranking import rank_key
from vae.schedules import RateControl, beta, learning_rate
from vae.windows import Order, Plan, Shape, Songs

MAX_EPOCHS = 27
EPOCH_STEPS = 100_000  # of music; of wide rows as many as are as wide
MIN_KL = 0.1  # nats a step of music; see `kl_as_wide`
_CHECK_EVERY = 20  # optimizer steps between looks at the loss; a look waits for a GPU
_RELEASE_SECONDS = 3.0  # between returns of free memory, at least
_IN_PLACE = 0.3  # share of windows that stay in their key when others are transposed


_CORRECTIONS = 3
"""Of a rate target, by validation: in as many first epochs, if scored, and then as many epochs apart at least."""


class DivergedError(ArithmeticError):
    """The loss is no longer finite."""


def failure_of(error: Exception) -> str:
    """Why a configuration can't be trained: it can't be, it diverged, or takes more memory than there is.

    Raises:
        RuntimeError: it is another error.
    """
    if isinstance(error, RuntimeError) and not lacks_memory(error):
        raise error
    return str(error).partition("\n")[0]


@dataclass(frozen=True)
class TrainingData:
    """A corpus on a device; trainers share it."""

    corpus: Corpus
    songs: dict[str, Songs]  # by split
    moments: Moments
    device: torch.device

    @classmethod
    def load(cls, corpus: Corpus, device: torch.device) -> "TrainingData":
        """Moves every split to the device, as one tensor each."""
        songs = {name: Songs(corpus.splits[name], device) for name in SPLITS}
        return cls(corpus, songs, moments_of(corpus.splits["train"], corpus.spec), device)


@dataclass
class Best:
    """The best epoch so far: feasible ones first, then by rank value."""

    key: tuple[bool, float]
    metrics: dict[str, float]
    weights: dict[str, Tensor]


class Trainer:
    """One model in training.

    Args:
        config: hyperparameters.
        data: a corpus on a device.
        seed: of weights, data order and noise.
        epoch_steps: time steps of training in an epoch; None: as many as are as wide as `EPOCH_STEPS` of music.
        min_kl: floor on the KL, nats a time step, that ranks epochs; None: `MIN_KL`, of wide rows as much more.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        seed: int = 0,
        epoch_steps: int | None = None,
        min_kl: float | None = None,
    ) -> None:
        self.config, self.data, self.seed = config, data, seed
        spec = data.corpus.spec
        self.epoch_steps = epoch_steps or steps_as_wide(spec, EPOCH_STEPS)
        self.min_kl = kl_as_wide(spec, MIN_KL) if min_kl is None else min_kl
        self.epoch = self.optimizer_step = self.steps_seen = 0
        self._corrected = 0  # the last epoch after which the rate target was
        self.train_seconds = 0.0
        self._released = time.monotonic()
        self.best: Best | None = None
        self._rng: dict[str, Tensor] = {}  # states of this trainer's random numbers, by kind of device
        self._bf16 = gains_by_bf16(config.family, data.device)
        with self._own_randomness():
            self.model = build_model(config, spec, data.moments).to(data.device)
        self._optimizer = Optimizer(self.model, config)
        self._control = RateControl(config, data.device) if config.rate_target else None
        self._graphs = Graphs(data.device)
        grid = spec.steps_per_bar if config.family == "hierarchical" else None
        songs, model = data.songs["train"], self.model
        self._order = Order(songs, config.shown, config.batch_steps, seed, grid or 1, model.padded_to)

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Runs on this trainer's random state and leaves the process's as it was."""
        cuda = self.data.device.type == "cuda"
        with torch.random.fork_rng([self.data.device] if cuda else []):
            torch.manual_seed(self.seed)  # of all devices
            if "cpu" in self._rng:
                torch.set_rng_state(self._rng["cpu"])
            if cuda and "cuda" in self._rng:
                torch.cuda.set_rng_state(self._rng["cuda"], self.data.device)
            yield
            self._rng = {"cpu": torch.get_rng_state()}
            if cuda:
                self._rng["cuda"] = torch.cuda.get_rng_state(self.data.device)

    def train_epoch(self, validate: bool = True) -> dict[str, float]:
        """Trains one epoch and evaluates on validation.

        Args:
            validate: whether to evaluate; only an epoch that is can be the best. A rate target is steered by what the
                first three epochs show, and then epochs that lie three apart: runs that are to be equal evaluate those.

        Returns:
            `epoch`; of training `train_log_likelihood`, `train_kl`, `train_elbo` (nats per time step), `beta`,
            `learning_rate`, `examples_per_second` (windows), `train_seconds`; on validation `val_elbo`,
            `val_elbo_per_song`, `val_log_likelihood`, `kl`, `code_gain`, `active_units`.

        Raises:
            DivergedError: the loss, or a metric on validation, is not finite.
        """
        started = time.perf_counter()
        with self._own_randomness():
            log_likelihood, kl, steps, windows = self._optimize()
        seconds = time.perf_counter() - started
        self.train_seconds += seconds
        self.epoch += 1
        metrics = {
            "epoch": self.epoch,
            "train_log_likelihood": log_likelihood / steps,
            "train_kl": kl / steps,
            "train_elbo": (log_likelihood - kl) / steps,
            "beta": float(self._control.beta) if self._control else beta(self.config, self.optimizer_step),
            "learning_rate": learning_rate(self.config, self.optimizer_step, self.steps_seen),
            "examples_per_second": windows / seconds,
            "train_seconds": seconds,
        }
        if validate:
            with self._optimizer.averaged():
                metrics |= self.validate()
                self._keep_best(metrics)
            self._correct(metrics)
        return metrics

    def _correct(self, metrics: dict[str, float]) -> None:
        """Corrects the rate target, if there is one, by an epoch that was scored; now and then."""
        soon = self.epoch > _CORRECTIONS and self.epoch - self._corrected < _CORRECTIONS
        if self._control is not None and not soon:
            self._control.correct(metrics["train_kl"], metrics["kl"])
            self._corrected = self.epoch

    def _optimize(self) -> tuple[float, float, int, int]:
        """Optimizer steps up to the end of the epoch, one at least; sums of log-likelihood and KL, steps, windows."""
        self.model.train()
        sums = torch.zeros(2, dtype=torch.float64, device=self.data.device)
        steps_before, windows = self.steps_seen, 0
        while windows == 0 or self.steps_seen < (self.epoch + 1) * self.epoch_steps:
            plan = self._order.take()
            sums += self._optimizer_step(plan)
            self.steps_seen += plan.steps
            windows += len(plan)
            if self.optimizer_step % _CHECK_EVERY == 0:
                self._check(sums)
            self._release_memory()
        log_likelihood, kl = self._check(sums)
        return log_likelihood, kl, self.steps_seen - steps_before, windows

    def _check(self, sums: Tensor) -> list[float]:
        values: list[float] = sums.tolist()
        for name, value in zip(("log-likelihood", "KL"), values, strict=True):
            if not math.isfinite(value):
                raise DivergedError(
                    f"diverged in epoch {self.epoch + 1}: the {name} is {value:g} after {self.optimizer_step} "
                    f"optimizer steps"
                )
        return values

    def _release_memory(self) -> None:
        now = time.monotonic()
        if now - self._released > _RELEASE_SECONDS:
            release_memory()
            self._released = now

    def _optimizer_step(self, plan: Plan) -> Tensor:
        """One step of AdamW; returns the sums of log-likelihood and KL, [2]."""
        songs = self.data.songs["train"]
        shape = songs.shape(plan, self.model.padded_to(plan.longest))
        numbers = torch.tensor([plan.steps, beta(self.config, self.optimizer_step)])
        sums = self._graphs.run(self._differentiate, shape, songs.places(plan, self._shift(len(plan))), numbers)
        self._optimizer.step(self.optimizer_step, self.steps_seen)
        self.optimizer_step += 1
        return sums

    def _shift(self, n: int) -> Tensor | None:
        """By how much n windows are transposed, [n]."""
        most = self.config.transpose
        return torch.randint(-most, most + 1, (n,)) * (torch.rand(n) >= _IN_PLACE) if most else None

    def _differentiate(self, shape: Shape, places: Tensor, numbers: Tensor) -> Tensor:
        """The gradient for the windows at some places; sums of log-likelihood and KL, [2].

        Args:
            shape: of the batch.
            places: as of `Songs.gather`.
            numbers: [2], the real steps and beta.
        """
        batch = self.data.songs["train"].gather(places, shape, self.config.transpose > 0)
        noise = torch.randn(self.model.code_shape(*batch.mask.shape), device=self.data.device)
        with self._mixed_precision():
            log_likelihood, code = self.model.terms(batch, noise)
        (steps, weight), control = numbers, self._control
        price = (weight, self.config.free_bits) if control is None else (control.beta, control.target)
        self._optimizer.differentiate(objective(log_likelihood, code.kl, steps, *price))
        if control is not None:
            control.observe(code.kl.sum() / steps)
        return torch.stack([log_likelihood.detach().double().sum(), code.kl.detach().double().sum()])

    def _mixed_precision(self) -> torch.autocast:
        """Products in bf16, which keeps float32's range, so that no loss needs scaling; evaluation is in float32."""
        return torch.autocast(self.data.device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def validate(self) -> dict[str, float]:
        """Scores the present weights on validation; names and errors are those of `train_epoch`."""
        values = evaluate(self.model, self.data.songs["valid"], VALIDATION_SEED)
        if not all(math.isfinite(value) for value in values.values()):
            raise DivergedError(f"diverged in epoch {self.epoch}: the ELBO on validation is {values['elbo']:g}")
        renamed = {name: f"val_{name}" for name in ("elbo", "elbo_per_song", "log_likelihood")}
        return {renamed.get(name, name): value for name, value in values.items()}

    def fall_within(self, lr_decay: int) -> None:
        """From here on the learning rate falls over another horizon, in time steps from the beginning of training."""
        self.config = self._optimizer.config = replace(self.config, lr_decay=lr_decay)

    def scored(self) -> dict[str, float]:
        """`epoch`, and on validation what `train_epoch` gave or would have given after it."""
        with self._optimizer.averaged():
            return {"epoch": self.epoch, **self.validate()}

    def _keep_best(self, metrics: dict[str, float]) -> None:
        key = rank_key(metrics, self.min_kl)
        if self.best is None or key > self.best.key:
            weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
            self.best = Best(key, metrics, weights)

    def save(self, directory: Path, final: bool = False) -> None:
        """Writes a checkpoint; after at least one epoch.

        Args:
            directory: an existing folder.
            final: leave out what only further training needs.
        """
        assert self.best is not None, "train an epoch first"
        tensors = {checkpoint.MODEL: self.best.weights}
        records: dict[str, dict[str, Any]] = {
            checkpoint.CONFIG: self._record(),
            checkpoint.METRICS: {**self.best.metrics, "provenance": self._provenance()},
        }
        if not final:
            tensors[checkpoint.TRAINING] = self._training_tensors()
            records[checkpoint.COUNTERS] = {
                "epoch": self.epoch,
                "optimizer_step": self.optimizer_step,
                "steps_seen": self.steps_seen,
                "corrected": self._corrected,
                "train_seconds": self.train_seconds,
                "best_key": list(self.best.key),
            }
        checkpoint.write_files(directory, tensors, records)

    def _record(self) -> dict[str, Any]:
        corpus = self.data.corpus
        split = {name: {"songs": len(part.lengths), "steps": len(part.values)} for name, part in corpus.splits.items()}
        return {
            **checkpoint.describe(self.config, corpus.spec),
            "data": corpus.name,
            "fingerprint": corpus.fingerprint,
            "split": split,
            "seed": self.seed,
            "epoch_steps": self.epoch_steps,
            "min_kl": self.min_kl,
            "versions": checkpoint.versions(),
        }

    def _provenance(self) -> dict[str, Any]:
        assert self.best is not None
        return {
            "seed": self.seed,
            "epoch": self.best.metrics["epoch"],
            "fingerprint": self.data.corpus.fingerprint,
        }

    def _training_tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in self._optimizer.tensors().items()}
        if self._control is not None:
            tensors |= {"control.beta": self._control.beta, "control.target": self._control.target}
        tensors |= {f"rng.{kind}": state for kind, state in self._rng.items()}
        return tensors | {f"order.{name}": value for name, value in self._order.state().items()}

    def restore(self, directory: Path) -> None:
        """Goes on exactly where `save` was called, on the same kind of device.

        Raises:
            OtherRunError: a checkpoint of another config, other data or another seed.
            UserError: no checkpoint, or a broken one.
        """
        self._require_same_run(directory)
        counters = checkpoint.read_json(directory / checkpoint.COUNTERS)
        tensors = checkpoint.read_tensors(directory / checkpoint.TRAINING)
        metrics = checkpoint.read_json(directory / checkpoint.METRICS)
        weights = checkpoint.read_tensors(directory / checkpoint.MODEL)
        try:
            self._restore_tensors(tensors)
            self.epoch, self.optimizer_step = counters["epoch"], counters["optimizer_step"]
            self.steps_seen, self.train_seconds = counters["steps_seen"], counters["train_seconds"]
            self._corrected = counters["corrected"]
            feasible, value = counters["best_key"]
            del metrics["provenance"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise OtherRunError(f"{directory}: not a checkpoint of this version ({error!r:.200}).") from None
        self.best = Best((feasible, value), metrics, weights)

    def _require_same_run(self, directory: Path) -> None:
        found, own = checkpoint.read_json(directory / checkpoint.CONFIG), self._record()
        for key in ("fingerprint", "config", "seed", "epoch_steps"):
            if found.get(key) != own[key]:
                raise OtherRunError(
                    f"{directory}: a run goes on with the same {key}, but the checkpoint's is {found.get(key)}, "
                    f"and this is {own[key]}."
                )

    def _restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(_with_prefix(tensors, "model."))
        self._optimizer.restore(_with_prefix(tensors, "optimizer."))
        if self._control is not None:
            self._control.beta.copy_(tensors["control.beta"])
            self._control.target.copy_(tensors["control.target"])
        self._rng = _with_prefix(tensors, "rng.")
        self._order.restore(_with_prefix(tensors, "order."))


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
