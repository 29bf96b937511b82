"""Variational autoencoders of music, on one machine: data, models, training, evaluation, sampling."""

import os

# PyTorch's threads wait for each other by spinning, for milliseconds; where other processes want the cores too, that
# takes thirty times as long as the work. OpenMP reads this when PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
