"""Published results on the four piano-roll sets: 88 keys, the standard split, nats per time step of test.

`bound`: a bound by one draw of the posterior, over steps; `bound_per_song`: the mean over songs; `estimate`: importance
sampled, or a bound by many draws; `exact`: no latent variables. All as negative log-likelihoods, lower is better.

Sources: Krishnan et al. 2017 (arXiv:1609.09869) and its supplement for DMM and TSBN; Boulanger-Lewandowski et al. 2012
for RNN-NADE, whose figure for JSB is 5.56 in other papers; Bai et al. 2018 for LSTM and TCN, which skip the first
step of a song; Maddison et al. 2017 for the VRNN, trained by three bounds and scored by many draws; Pyro's tutorial for
its DMM.
"""

import re
from typing import NamedTuple


class Published(NamedTuple):
    """One model on one set."""

    model: str
    bound: float | None = None
    bound_per_song: float | None = None
    estimate: float | None = None
    exact: float | None = None


_ENDS = {"jsb": "chorales", "muse": "data", "pianomidi": "de"}
"""Of the names of sets, what some files leave out."""
TABLES = {
    "jsb": (
        Published("independent keys", exact=11.06),
        Published("RNN", exact=8.71),
        Published("LSTM, first step skipped", exact=8.45),
        Published("TCN, first step skipped", exact=8.10),
        Published("VRNN by ELBO", estimate=8.69),
        Published("VRNN by IWAE, N = 5", estimate=8.01),
        Published("VRNN by FIVO, N = 5", estimate=7.51),
        Published("TSBN", bound=7.48),
        Published("DMM", 6.93, 6.86, 6.39),
        Published("DMM of Pyro, 2 IAF", bound=6.80),
        Published("DMM-Aug", 6.77, 6.69, 6.29),
        Published("DMM-Aug-NADE", 5.34, 5.26, 5.12),
        Published("RNN-NADE, elsewhere 5.56", exact=5.19),
    ),
    "nottingham": (
        Published("independent keys", exact=10.25),
        Published("RNN", exact=4.46),
        Published("LSTM, first step skipped", exact=3.29),
        Published("TCN, first step skipped", exact=3.07),
        Published("VRNN by ELBO", estimate=3.87),
        Published("VRNN by IWAE, N = 5", estimate=3.12),
        Published("VRNN by FIVO, N = 5", estimate=3.07),
        Published("TSBN", bound=3.67),
        Published("DMM", 2.96, 2.95, 2.77),
        Published("DMM-Aug", 2.86, 2.87, 2.68),
        Published("DMM-Aug-NADE", 2.35, 2.36, 2.31),
        Published("RNN-NADE", exact=2.31),
    ),
    "muse": (
        Published("independent keys", exact=11.51),
        Published("RNN", exact=8.13),
        Published("VRNN by ELBO", estimate=7.48),
        Published("VRNN by IWAE, N = 5", estimate=7.45),
        Published("VRNN by FIVO, N = 5", estimate=6.75),
        Published("TSBN", bound=6.81),
        Published("DMM", 6.99, 6.20, 6.83),
        Published("DMM-Aug", 6.48, 5.77, 6.36),
        Published("DMM-Aug-NADE", 6.12, 5.25, 6.05),
        Published("RNN-NADE", exact=5.60),
    ),
    "pianomidi": (
        Published("independent keys", exact=11.05),
        Published("RNN", exact=8.37),
        Published("VRNN by ELBO", estimate=7.99),
        Published("VRNN by IWAE, N = 5", estimate=7.97),
        Published("VRNN by FIVO, N = 5", estimate=7.85),
        Published("TSBN", bound=7.98),
        Published("DMM", 7.98, 8.25, 7.84),
        Published("DMM-Aug", 7.72, 8.03, 7.59),
        Published("DMM-Aug-NADE", 7.10, 7.36, 7.05),
        Published("RNN-NADE", exact=7.05),
    ),
}


def published(data: str) -> tuple[Published, ...]:
    """The results on a set, known by its file's name, whatever is between its letters; none for other sets."""
    name = re.sub("[^a-z0-9]", "", data.lower())
    return next((rows for word, rows in TABLES.items() if name in (word, word + _ENDS.get(word, ""))), ())
