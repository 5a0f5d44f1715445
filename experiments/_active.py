"""What the active learning experiments share."""

from rank_ssl import config


def ask(made: config.Config) -> None:
    """Algorithm 1 in place of one training: a tenth at first, a tenth more in each of T cycles."""
    made.mode = 'active'
    made.active = config.Active()  # the paper's: T = 9, S = 10 %, K = 100
    made.data.labels = 0
    # Train on D alone: of the order that it has been taught on a pool image it would be certain.
    made.data.unlabeled_rest, made.data.unlabeled_labeled = False, True


def smoke(made: config.Config) -> None:
    """Every part of the cycles, in seconds."""
    made.active.start, made.active.share, made.active.cycles = 0.4, 0.3, 2
    made.steps, made.keep = 8, 2
