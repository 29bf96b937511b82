"""What the README claims, measured; peers included."""
