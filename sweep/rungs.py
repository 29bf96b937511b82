"""Rungs: the epochs at which trials compete, and when they are scored. Without Ray."""

REDUCTION_FACTOR = 3
PROMOTION, STOPPING = "promotion", "stopping"
KINDS = (PROMOTION, STOPPING)
"""What becomes of a trial at a rung that is not among the best, see `sweep.scheduler`: it waits, or it ends."""


def rungs(max_epochs: int) -> tuple[int, ...]:
    """The epochs at which trials compete, the last one max_epochs: 1, 3, 9, 27."""
    epochs, rung = [], 1
    while rung < max_epochs:
        epochs.append(rung)
        rung *= REDUCTION_FACTOR
    return (*epochs, max_epochs)


def validates(epoch: int, at_rungs: tuple[int, ...]) -> bool:
    """Whether an epoch is scored on validation: the first three, every third, and rungs.

    Scoring a split costs up to a third of training on as many steps; each epoch of it would slow the search by a tenth.
    """
    return epoch <= REDUCTION_FACTOR or epoch % REDUCTION_FACTOR == 0 or epoch in at_rungs
