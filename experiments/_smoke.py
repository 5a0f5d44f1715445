"""What every experiment's `smoke` sets: a tiny network on tiny made data, and eight steps."""

from rank_ssl import config


def shrink(made: config.Config) -> None:
    """Every part of a run in seconds, with four checkpoints and two validations."""
    made.model.backbone, made.model.width, made.model.weights = 'vgg8', 0.1, 'none'
    made.model.frozen_blocks = 0
    made.data.tiny = 8
    made.data.validation = 0.25
    made.data.groups, made.data.labeled_per_group = 2, 2
    made.data.test_stride = 1
    made.accumulate = 1
    made.steps = 8
    made.eval_every = 4
    made.checkpoint_every = 2
    made.log_every = 1
    made.eval_batch = 1
    made.figure_count = 2
