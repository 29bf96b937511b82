"""Many trials of one trainer: Ray Tune schedules, Optuna proposes, ASHA stops the weak early."""
