"""What the active learning experiments share."""

from rank_ssl import config


def ask(made: config.Config) -> None:
    """Algorithm 1 in place of one training: a tenth at first, a tenth more in each of T cycles."""
    made.mode = 'active'
    made.active = config.Active()  # the paper's: T = 9, S = 10 %, K = 100
    made.data.labels = 0
    # Train on D alone: of the order that it has been taught on a pool image it would be certain.
    made.data.unlabeled_rest, made.data.unlabeled_labeled = False, True


def evidence(made: config.Config, steps: int) -> None:
    """A few cycles on two CPU cores in minutes: trained without ranking, which takes half of it."""
    made.regime = 'baseline'
    made.active.cycles = 2
    made.steps, made.eval_every, made.checkpoint_every = steps, steps, steps
    made.optim.warmup = 10
    made.keep = 1
    made.data.test_stride = 4


def smoke(made: config.Config, *, cycles: int = 1) -> None:
    """Every part of a cycle, in seconds: trainings, and what is asked between them."""
    made.active.start, made.active.share, made.active.cycles = 0.4, 0.3, cycles
    made.steps, made.keep = 8, 2
