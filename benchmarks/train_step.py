"""How fast the trainer goes: examples a second of each family, beside what bounds them.

    python -m benchmarks.train_step

Two yardsticks, both measured in the same turn as the trainer, turn after turn: the arithmetic of a large matrix
product on as many threads, on a GPU in bf16 if it trains in that (`share_of_limit`: the model's own products, forwards
and backwards, in a second of training, over the limit), and a plain loop over the same model: a `DataLoader`, AdamW as
it comes, a look at the loss after every step (`ratio_plain_loop`: our time steps a second over its). Medians over the
turns.

An example is a window; `dense` is the seed's VAE on 16 steps of 88 keys, 1,408 inputs, in batches of 1,024 steps. That
is 64 whole windows; the trainer cuts songs elsewhere in each pass, so that of its windows some are shorter, and 80 make
a batch, of the plain loop's 70. So the loops are compared by steps.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import RESULTS, ROOT, SEEDS_PARAMS, Table, write
from vae.config import FAMILY_NAMES, Config
from vae.corpus import Corpus, load_corpus
from vae.device import default_device, gains_by_bf16
from vae.loss import objective
from vae.models.base import Vae
from vae.trainer import Trainer, TrainingData
from vae.windows import Batch

NAME = "train_step"
_COLUMNS = ("family", "examples/s", "steps/s", "share of the limit", "plain loop, steps/s", "ratio")
_BATCHES, _RECORDED = 20, 10
"""In an epoch; epochs before the watch starts, on a GPU."""
_CPU = torch.device("cpu")
_SIDE, _SIDE_ON_GPU = 1024, 8192
"""Rows and columns of the matrix product whose speed is the limit."""


def limit() -> float:
    """Floating point operations a second of a large matrix product: float32, on a GPU what it trains in."""
    device = default_device()
    side = _SIDE if device.type == "cpu" else _SIDE_ON_GPU
    kind = torch.bfloat16 if device.type != "cpu" and gains_by_bf16("", device) else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        a @ b
    rates = []
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(2.0 * side**3 / (time.perf_counter() - started))
    return statistics.median(rates)


class Tally:
    """Counts the operations of the products in a model's dense and recurrent layers, forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        self.operations = 0.0
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.LSTM):
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
        x = inputs[0]
        rows = x.numel() // x.shape[-1]
        weights = [p for p in module.parameters() if p.ndim == 2]
        forwards = 2.0 * rows * sum(weight.numel() for weight in weights)
        # Backwards there are as many for the weights, and as many for the input if it was computed.
        self.operations += forwards * (3.0 if x.requires_grad or isinstance(module, nn.LSTM) else 2.0)


def windows_of(trainer: Trainer) -> TensorDataset:
    """All training windows, padded to the longest: the fields of a `Batch`."""
    songs = trainer.data.songs["train"]
    plan = songs.partition(trainer.config.window)
    batch = songs.batch(plan, trainer.model.padded_to(plan.longest))
    return TensorDataset(batch.x, batch.mask, batch.previous, batch.begins, batch.shift)


def forever(loader: "DataLoader[tuple[Tensor, ...]]") -> Iterator[Batch]:
    """Pass after pass."""
    while True:
        for fields in loader:
            yield Batch(*fields)


class PlainLoop:
    """What one writes first: the same model and loss, and PyTorch's own parts around it."""

    def __init__(self, trainer: Trainer) -> None:
        self.model: Vae = trainer.model
        self._free_bits = trainer.config.free_bits
        self._clip = trainer.config.grad_clip
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=trainer.config.learning_rate)
        windows = windows_of(trainer)
        count = max(1, trainer.config.batch_steps * len(windows) // trainer.data.songs["train"].steps)
        self._batches = forever(DataLoader(windows, count, shuffle=True))

    def run(self, seconds: float) -> tuple[float, float]:
        """Trains for some seconds; windows and steps a second."""
        self.model.train()
        started, windows, steps, losses = time.perf_counter(), 0, 0, 0.0
        while time.perf_counter() - started < seconds:
            batch = next(self._batches)
            noise = torch.randn(self.model.code_shape(*batch.mask.shape), device=batch.x.device)
            log_likelihood, code = self.model.terms(batch, noise)
            real = int(batch.mask.sum())
            loss = objective(log_likelihood, code.kl, real, 1.0, self._free_bits)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
            self._optimizer.step()
            losses += loss.item()
            windows, steps = windows + len(batch.x), steps + real
        elapsed = time.perf_counter() - started
        return windows / elapsed, steps / elapsed


def operations_a_step(config: Config, corpus: Corpus) -> float:
    """Of a time step in training; counted on the CPU, for what a GPU replays calls nobody."""
    trainer = Trainer(config, TrainingData.load(corpus, _CPU), epoch_steps=_BATCHES * config.batch_steps)
    tally = Tally(trainer.model)
    trainer.train_epoch(validate=False)
    return tally.operations / trainer.steps_seen


def ours(trainer: Trainer, seconds: float) -> tuple[float, float]:
    """Trains for some seconds, an epoch at a time; windows and steps a second."""
    started, windows, steps = time.perf_counter(), 0.0, trainer.steps_seen
    while time.perf_counter() - started < seconds:
        metrics = trainer.train_epoch(validate=False)
        windows += metrics["examples_per_second"] * metrics["train_seconds"]
    elapsed = time.perf_counter() - started
    return windows / elapsed, (trainer.steps_seen - steps) / elapsed


def config_of(family: str, corpus: Corpus) -> Config:
    """The defaults of a family; of `dense` the seed's."""
    return Config.for_data(corpus.spec, {**SEEDS_PARAMS} if family == "dense" else {"family": family})


def turn(family: str, data: TrainingData, operations: float, seconds: float) -> dict[str, float]:
    """Both loops and the limit, once; `operations` as of `operations_a_step`."""
    config = config_of(family, data.corpus)
    made = [Trainer(config, data, epoch_steps=_BATCHES * config.batch_steps) for _ in range(2)]
    plain = PlainLoop(made[1])
    # Caches fill, memory is claimed; on a GPU the steps are recorded.
    for _ in range(1 if data.device.type == "cpu" else _RECORDED):
        made[0].train_epoch(validate=False)
    plain.run(0.2 * seconds)
    before = limit()
    examples, steps = ours(made[0], seconds)
    their_examples, their_steps = plain.run(seconds)
    at_most = 0.5 * (before + limit())
    return {
        "examples_per_second": examples,
        "steps_per_second": steps,
        "limit_gflops": 1e-9 * at_most,
        "share_of_limit": operations * steps / at_most,
        "plain_examples_per_second": their_examples,
        "plain_steps_per_second": their_steps,
        "ratio_plain_loop": steps / their_steps,
    }


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """All turns, by family."""
    corpus = load_corpus("bach", "roll", 1, 4)
    data = TrainingData.load(corpus, default_device())
    turns: dict[str, list[dict[str, float]]] = {family: [] for family in args.family}
    operations = {family: operations_a_step(config_of(family, corpus), corpus) for family in turns}
    for repeat in range(args.repeats):
        for family, figures in turns.items():
            figures.append(turn(family, data, operations[family], args.seconds))
            shown = ", ".join(f"{name} {value:.3g}" for name, value in figures[-1].items())
            print(f"{repeat + 1}/{args.repeats} {family}: {shown}", flush=True)
    return turns


def summarise(turns: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians: by family, and by figure as other programs read them."""
    typical = {
        family: {name: statistics.median(figures[name] for figures in made) for name in made[0]}
        for family, made in turns.items()
    }
    named = {
        name: {family: figures[name] for family, figures in typical.items()}
        for name in ("share_of_limit", "ratio_plain_loop")
    }
    return {**named, "threads": torch.get_num_threads(), "families": typical, "turns": turns}


def table(figures: dict[str, Any]) -> Table:
    """A row a family."""
    rows = [
        (
            family,
            f"{row['examples_per_second']:,.0f}",
            f"{row['steps_per_second']:,.0f}",
            f"{row['share_of_limit']:.2g}",
            f"{row['plain_steps_per_second']:,.0f}",
            f"{row['ratio_plain_loop']:.2f}",
        )
        for family, row in figures["families"].items()
    ]
    return Table(_COLUMNS, rows)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="The speed of training.")
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, help="repeatable (default: all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each loop in a turn (default: 5)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="as many as a trial of a sweep has (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.relative_to(ROOT)}/{NAME}.json")
    args = parser.parse_args(argv)
    args.family = args.family or list(FAMILY_NAMES)
    torch.set_num_threads(args.threads)
    figures = summarise(measure(args))
    write(NAME, figures, table(figures), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
