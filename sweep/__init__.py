"""Many trials of one trainer: Ray Tune schedules, Optuna proposes, ASHA stops the weak early."""

import vae as vae  # before PyTorch: it says how threads wait
