"""A sweep in words and in one table: how far it is, what it cost, what it found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.live import duration
from sweep.reading import Reading, Trial
from vae.files import printable

_TOP = 8
"""Trials in the table, at most."""
_SCORES = ("val_elbo", "kl", "code_gain")


def words(reading: Reading) -> list[str]:
    """Sentences for the head of a report."""
    settings = reading.settings
    lines = [
        f"Data {printable(settings.data)}, {settings.spec.encoding}; {', '.join(settings.families)}; rungs at epochs "
        f"{', '.join(map(str, reading.rungs))} of {settings.epoch_steps:,} time steps; floor of the KL "
        f"{settings.min_kl:g} nats per time step. As of {reading.written:%Y-%m-%d %H:%M:%S}.",
        f"{reading.requested} trials: {_states(reading)}.",
        _cost(reading),
        _best(reading),
    ]
    return [line for line in lines if line]


def _states(reading: Reading) -> str:
    counts = Counter(_state(trial) for trial in reading.trials)
    counts["pending"] = reading.requested - len(reading.trials)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common() if count)


def _state(trial: Trial) -> str:
    """Of a trial in the journal; whether one that has not ended runs is known to the sweep alone."""
    if trial.record.waits:
        return "waiting at a rung"
    return "not ended yet" if trial.record.state == "paused" else trial.record.state


def _cost(reading: Reading) -> str:
    whole = len(reading.trials) * reading.settings.max_epochs
    took, share = reading.summary.get("search_seconds"), reading.summary.get("train_share")
    time = f" {duration(took)} of search" if took else ""
    time += f", {share:.0%} of it training" if took and share else ""
    return (
        f"{reading.epochs:,} epochs trained, where training each of these trials to the top would take {whole:,}: "
        f"{reading.epochs / whole:.0%}.{time}{'.' if time else ''}"
    )


def _best(reading: Reading) -> str:
    ranked = reading.ranked()
    if not ranked:
        return "No trial has been scored on validation yet."
    if reading.summary.get("best", {}).get("seeds"):
        return _best_of_seeds(reading.summary["best"])
    best, metrics = ranked[0], ranked[0].record.best
    baseline = reading.summary.get("baseline", {}).get("marginal_elbo")
    beside = f" (independent keys: {baseline:.3f})" if baseline is not None else ""
    return (
        f"Best: trial {best.number} ({best.family}) at epoch {metrics['epoch']:.0f}, nats per time step of validation: "
        f"{_scores(metrics, beside, reading.feasible(best))}{_test(reading, best)}"
    )


def _best_of_seeds(best: dict[str, Any]) -> str:
    """The winner of the final runs: the median seed of a configuration, which need not be that ranked first above."""
    elbos = [seed["val_elbo"] for seed in best["seeds"]]
    test = "" if best["test_elbo"] is None else f" On test: ELBO {best['test_elbo']:.3f}."
    return (
        f"Best, by the mean of {len(elbos)} seeds: trial {best['trial']} ({best['params']['family']}), its median seed "
        f"at epoch {best['epoch']:.0f}, nats per time step of validation: "
        f"{_scores(best, f' ({min(elbos):.3f} to {max(elbos):.3f})', best['feasible'])}{test}"
    )


def _scores(metrics: Mapping[str, float], beside: str, feasible: bool) -> str:
    """Of an epoch; `beside` stands beside the ELBO."""
    return (
        f"ELBO {metrics['val_elbo']:.3f}{beside}, KL {metrics['kl']:.3f}, code gain {metrics['code_gain']:.3f}"
        f"{'' if feasible else '; infeasible: its code says too little'}."
    )


def _test(reading: Reading, best: Trial) -> str:
    """What the winner scored on test, if it has been and still is the winner."""
    scored = reading.summary.get("best", {})
    if scored.get("test_elbo") is None or scored["trial"] != best.number:
        return ""
    return f" On test: ELBO {scored['test_elbo']:.3f}, importance-weighted bound {scored['test_iwae']:.3f}."


def top_rows(reading: Reading) -> list[list[str]]:
    """A column a trial, the best first; a row for each thing that is known of them, params last."""
    top = reading.ranked()[:_TOP]
    params = dict.fromkeys(name for trial in top for name in trial.record.params if name != "family")
    return [
        ["trial", *(str(trial.number) for trial in top)],
        ["family", *(trial.family for trial in top)],
        ["state", *(_state(trial) for trial in top)],
        ["best epoch", *(f"{trial.record.best['epoch']:.0f}" for trial in top)],
        *([name, *(f"{trial.record.best[name]:.3f}" for trial in top)] for name in _SCORES),
        ["feasible", *("yes" if reading.feasible(trial) else "no" for trial in top)],
        *([name, *_values(name, top)] for name in params),
    ]


def _values(name: str, top: Sequence[Trial]) -> list[str]:
    return [_say(trial.record.params.get(name, "")) for trial in top]


def _say(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
