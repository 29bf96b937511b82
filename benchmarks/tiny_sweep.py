"""A sweep whose trials train tiny models, whatever sizes were drawn, as `benchmarks.driver_time` starts it.

    python -m benchmarks.tiny_sweep --data chords.json --family dense --trials 10000

All else is `sweep.run`, with its options: proposals from the whole space, reports, checkpoints, files. Models as they
are drawn would grow with what TPE likes, and the driver would wait for them.
"""

import sys
from functools import partial
from typing import Any

from sweep import run
from sweep.trial import VaeTrial

_TINY = {"dense_width": 4, "dense_depth": 1, "head_width": 4, "head_layers": 0, "latent_dim": 2}


class TinyTrial(VaeTrial):  # type: ignore[misc]  # ray ships incomplete types
    """Has the sizes of a tiny model in the place of those drawn."""

    def _begin(self, config: dict[str, Any]) -> None:
        super()._begin(config | {"params": config["params"] | _TINY})


if __name__ == "__main__":
    run.run_trials = partial(run.run_trials, trial=TinyTrial)
    sys.exit(run.main())
