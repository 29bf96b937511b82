"""Variational autoencoders of music, on one machine: data, models, training, evaluation, sampling."""
