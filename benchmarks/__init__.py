"""What the README claims, measured; peers included."""

import vae as vae  # before PyTorch: it says how threads wait
