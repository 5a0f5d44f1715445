"""What the crowd counting experiments share: the paper's settings, and two smaller scales."""

from experiments import _smoke
from rank_ssl import config
from rank_ssl.tasks.crowd import Crowd


def paper(made: config.Config) -> None:
    """Section 6.2, and our choice where it is silent or diverges."""
    made.data.unlabeled_labeled = True  # the paper's unlabeled images were never released
    made.rank_weight = 100.0
    made.reduction = (
        'caffe'  # the released layers' normalisation; `paper` diverges (BUILD_NOTES.md)
    )
    made.optim.rate = 1e-6
    made.optim.clip_norm = 100.0  # without it `caffe` diverges too at 1e-7 and above
    made.accumulate = 5  # a group at a time: 7.9 GB at the peak on a CPU; 1 on an accelerator


def evidence(made: config.Config, task: Crowd) -> None:
    """The same method on two CPU cores in minutes."""
    task.size = 64
    task.patch_min, task.patch_max = 64, 256  # 64 px: a quarter to the original's scale
    task.eval_side = 384
    # Of 4 x 4 cells 12 are at the border: whole images, whose cells mostly are not, were counted
    # up to 2.4 times by a network that had seen borders alone.
    made.eval_tile = 64
    made.model.frozen_blocks = 3  # conv1-conv3 stay ImageNet's
    made.data.groups = 2
    made.optim.name = 'adam'
    made.optim.rate = 1e-4
    made.optim.clip_norm = 0.0
    made.optim.head_rate = 1.0
    made.optim.schedule = 'cosine'
    made.reduction = 'mean'
    made.margin = 5.0
    made.rank_weight = 1.0
    made.accumulate = 1
    made.optim.warmup = 25
    made.steps = 150
    made.eval_every = 50
    made.checkpoint_every = 150
    made.eval_batch = 1


def smoke(made: config.Config, task: Crowd) -> None:
    """Every part of the run, on made images of 64x96 px."""
    _smoke.shrink(made)
    task.size = 32
    task.patch_min, task.patch_max = 24, 64
    task.eval_side, made.eval_tile = 0, 0
    made.data.allow_partial = True
