"""What the image quality experiments share: the paper's settings, and two smaller scales."""

from experiments import _smoke
from rank_ssl import config
from rank_ssl.tasks.iqa import IQA


def paper(made: config.Config) -> None:
    """Section 6.1, and the released solver where it is silent."""
    made.model.last_pool = True  # fc6 reads pool5
    made.data.groups, made.data.labeled_per_group = 12, 1  # 12 x (5 + 1) = 72 images
    made.data.unlabeled_rest = False  # an image that is distorted already makes no ladder
    made.data.unlabeled_set = 'waterloo'
    made.reduction = 'caffe'  # the plain sum over 120 pairs drowns the regression
    made.rank_weight = 1.0
    made.optim.rate = 1e-5
    made.optim.decay_every = 10_000
    made.optim.clip_norm = 100.0
    made.pretrain.rate = 1e-4
    made.steps = 50_000
    made.eval_every = 5_000
    made.checkpoint_every = 1_000
    made.accumulate = 6  # two groups at a time on one device; 1 on an accelerator
    made.eval_batch = 1


def evidence(made: config.Config, task: IQA) -> None:
    """The same method on two CPU cores in minutes."""
    task.size = 96
    task.last = 'pool'
    task.dropout = 0.0
    task.sub_images = 5
    made.model.last_pool = False
    made.model.frozen_blocks = 3  # conv1-conv3 stay ImageNet's
    made.data.groups, made.data.labeled_per_group = 2, 5
    made.reduction = 'mean'
    made.rank_weight = 0.3
    made.optim.name = 'adam'
    made.optim.rate = 1e-4
    made.optim.clip_norm = 0.0
    made.optim.head_rate = 1.0  # ten times more moves a score by a point a step
    made.optim.schedule = 'cosine'
    made.optim.warmup = 20
    made.pretrain.rate = 0.0
    made.accumulate = 1
    made.steps = 300
    made.eval_every = 150
    made.checkpoint_every = 100
    made.eval_batch = 4


def smoke(made: config.Config, task: IQA) -> None:
    """Every part of the run, on tiny made images."""
    _smoke.shrink(made)
    task.size, task.features = 32, 64  # with 4096 a checkpoint of the tiny network is 120 MB
    task.sub_images = 2
    made.data.allow_partial = True
    made.data.unlabeled_set, made.data.unlabeled_dirs = 'ladders', ''
