"""The configuration of a run: one typed dataclass that an experiment file builds.

Every field can be set on the command line (`--config.optim.rate=1e-5`); a misspelt one is an
error there and in the file. `Config.check()` refuses what cannot work before anything compiles.
"""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from rank_ssl.errors import UserError
from rank_ssl.types import Task, active_task

MODES = ('train', 'evaluate', 'active')
# finetune: ranking, then regression from its parameters; ridge: frozen features, no training.
REGIMES = ('multitask', 'baseline', 'ranking', 'finetune', 'ridge')
REDUCTIONS = ('paper', 'caffe', 'mean')
SAMPLERS = ('all', 'random', 'hard')
RULES = ('certainty', 'graded', 'random', 'dropout', 'kcenter')
DEFAULT_WEIGHTS = 'weights/vgg16_imagenet_convs_f16.npz'  # below $RANK_SSL_DATA


@dataclasses.dataclass(slots=True)
class Model:
    """The backbone; the layers after it belong to the task."""

    backbone: str = 'vgg16'  # 'vgg16', 'vgg11' or 'vgg8' (convolutions per block 2 2 3 3 3, ...)
    width: float = 1.0  # factor on the channels 64 128 256 512 512; 1 for ImageNet weights
    blocks: int = 5  # blocks kept (5.3: conv5_3, that is 5)
    last_pool: bool = False  # pool after the last block (5.3: no pool5)
    frozen_blocks: int = 0  # first blocks that are not trained (0 in the paper)
    weights: str = ''  # npz or safetensors; '' = $RANK_SSL_DATA's VGG-16, 'none' = from scratch
    pixels: str = 'auto'  # 'caffe', 'torch', 'raw_rgb', 'raw_bgr'; auto = what the weights expect
    dtype: str = 'float32'  # of the activations ('bfloat16' on TPU and GPU); parameters float32
    remat: bool = False  # recompute each block in the backward pass: less memory, a third more time

    def weights_path(self) -> str | None:
        """The file to initialise from; None for training from scratch. Raises UserError."""
        if self.weights == 'none':
            return None
        root = os.environ.get('RANK_SSL_DATA')
        path = self.weights or (os.path.join(root, DEFAULT_WEIGHTS) if root else '')
        if path and os.path.isfile(path):
            return path
        cure = 'name an npz or safetensors file, or none to train from scratch'
        if not path:
            raise UserError(
                f'config.model.weights is not set and $RANK_SSL_DATA names no folder: {cure}'
            )
        raise UserError(f'config.model.weights={path} does not exist: {cure}')


@dataclasses.dataclass(slots=True)
class Data:
    """Which images, which of them labeled, and how they are read."""

    dataset: str = 'synthetic_crowd'  # a folder of data_prep
    part: str = ''  # the data set's variant, e.g. 'part_A'; '' where it has one alone
    manual_dir: str = ''  # parent of the downloaded sets; '' = $RANK_SSL_DATA
    data_dir: str = ''  # prepared sets; '' = the user's cache folder
    labels: int = 0  # labeled training images; 0 = all that validation leaves
    validation: float = 0.1  # share of the training split that selects the best step
    fold: int = 0  # the part that is tested on, from 1, where a data set has folds; 0 = its split
    test_share: float = 0.2  # of the references, where the data set publishes no test split (6.1)
    unlabeled_rest: bool = True  # the training images without a label serve unlabeled
    unlabeled_labeled: bool = False  # so do the labeled ones: their crops have an order too
    unlabeled_dirs: str = ''  # and these folders of images, separated by commas,
    unlabeled_set: str = 'image_folder'  # read by this folder of data_prep: 'ladders', 'waterloo'
    groups: int = 5  # G, groups in a mini-batch
    labeled_per_group: int = 5  # R; 5 x (5 + 5) = 50 is the paper's crowd batch (6.2)
    test_stride: int = 1  # evaluate on every n-th test image
    allow_partial: bool = False  # accept an incomplete copy; results say so
    on_bad: str = 'error'  # unreadable source files: 'error' or 'skip'
    workers: int = 0  # processes that make batches; 0 = threads of this one
    threads: int = 2  # of this process, where workers = 0
    prefetch: int = 2  # batches made ahead, per worker or in all
    silence: float = 600.0  # seconds without a batch after which those that make them count as hung
    tiny: int = 0  # smoke runs: first make this many tiny training images below the workdir


@dataclasses.dataclass(slots=True)
class Optim:
    """The update rule (6.1, 6.2) and its schedule."""

    name: str = 'sgd'  # 'sgd' (the paper's) or 'adam'
    rate: float = 1e-6  # initial learning rate
    momentum: float = 0.9  # of sgd; the released IQA code's
    weight_decay: float = 5e-4  # on kernels, not on biases
    head_rate: float = 10.0  # factor on the rate of the task's new layers (released code)
    schedule: str = 'step'  # 'step', 'cosine' (to 0 at the last step) or 'constant'
    decay_every: int = 5000  # steps between decays (6.2)
    decay_factor: float = 0.1  # what each of them multiplies the rate with
    warmup: int = 0  # steps of linear warm-up
    clip_norm: float = 0.0  # bound on the global gradient norm; 0 = none


@dataclasses.dataclass(slots=True)
class Pretrain:
    """The first stage of ranking then fine-tuning (3.2), in a folder `ranking` of the workdir."""

    steps: int = 0  # 0 = config.steps
    rate: float = 0.0  # 0 = config.optim.rate; 1e-4 in the paper, then 1e-6 (6.1)


@dataclasses.dataclass(slots=True)
class Active:
    """Algorithm 1, of `mode` active: which units to label next. A unit is labeled at once."""

    rule: str = 'certainty'  # of eq. 15; or 'graded', 'random', 'dropout', 'kcenter'
    start: float = 0.1  # share of the training units that is labeled at first (6.1.3, 6.2.3)
    share: float = 0.1  # S, the share that each cycle adds
    cycles: int = 9  # T: so many times units are added, after a training of `steps` each
    pairs: int = 100  # K, pairs of a unit that are compared; 0 = all
    restart: bool = False  # train from the initial parameters, not from the last ones
    draws: int = 20  # forwards with dropout whose variance is rule `dropout`
    dropout: float = 0.2  # share of the last channels that these leave out


@dataclasses.dataclass(slots=True)
class Config:
    """A run. The defaults are the paper's crowd counting settings where it gives them."""

    task: Task
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    optim: Optim = dataclasses.field(default_factory=Optim)
    pretrain: Pretrain = dataclasses.field(default_factory=Pretrain)
    active: Active = dataclasses.field(default_factory=Active)
    mode: str = 'train'  # 'evaluate' the best checkpoint of a workdir; 'active' (Algorithm 1)
    regime: str = 'multitask'  # 'baseline' (regression), 'ranking', 'finetune', 'ridge' (3.2)
    init_from: str = ''  # workdir of a run whose parameters this one starts from
    rank_weight: float = 1.0  # lambda of eq. 5
    margin: float = 0.0  # epsilon of eq. 4, in the unit of the score
    margin_grows: bool = False  # times the number of levels between the two of a pair
    sampler: str = 'all'  # pairs ranked: 'all' of a group (3.3), 'random' or 'hard' (6.1.1)
    hard_every: int = 5000  # steps after which hard mining ranks more pairs (6.1.1),
    hard_add: int = 1  # those of the highest loss in each group, so many each time
    reduction: str = 'paper'  # 'paper' (eq. 8, 17), 'caffe' (released code) or 'mean'
    deterministic: bool = False  # bit-equal runs on GPUs too, at some cost; CPUs and TPUs are so
    seed: int = 0  # of every random draw: splits, crops, order, initial parameters
    steps: int = 10_000  # updates (6.2); in active learning of each training
    first_step: int = 0  # updates of the trainings before, whose random draws are not used again
    accumulate: int = 1  # parts that a device computes its groups in, one after another
    eval_every: int = 500  # steps between validations; 0 = at the end alone
    eval_batch: int = 1  # images of one shape evaluated at once, per device
    eval_tile: int = 0  # side of the squares, px, that they are forwarded in; 0 = as they are
    checkpoint_every: int = 500  # steps between saves
    keep: int = 2  # newest checkpoints kept; the best is kept beside them
    log_every: int = 10  # steps between lines of metrics.jsonl
    max_bad_steps: int = 10  # non-finite gradients in a row that stop the run
    evaluate_test: bool = True  # at the end; false while settings are chosen on validation
    figure_count: int = 6  # examples drawn in the figures

    def check(self) -> None:
        """Raises UserError with the first field that cannot work."""
        if not isinstance(self.task, Task):
            raise UserError(f'config.task={self.task!r} is not a task: build one of rank_ssl.tasks')
        _check_types(self, 'config')
        choices = {'mode': MODES, 'regime': REGIMES, 'reduction': REDUCTIONS, 'sampler': SAMPLERS}
        for field, allowed in choices.items():
            _one_of(f'config.{field}', getattr(self, field), allowed)
        _one_of('config.optim.name', self.optim.name, ('sgd', 'adam'))
        _one_of('config.optim.schedule', self.optim.schedule, ('step', 'cosine', 'constant'))
        _one_of('config.active.rule', self.active.rule, RULES)
        _one_of('config.data.on_bad', self.data.on_bad, ('error', 'skip'))
        self._check_numbers()
        self.task.check()
        self._check_tile()
        self._check_active()
        self._check_pairs()

    def _check_numbers(self) -> None:
        positive = ('steps', 'accumulate', 'eval_batch', 'checkpoint_every', 'keep', 'log_every',
                    'max_bad_steps', 'data.groups', 'data.labeled_per_group', 'data.threads',
                    'data.test_stride', 'data.prefetch', 'data.silence',
                    'hard_every', 'hard_add', 'active.start', 'active.share', 'active.draws',
                    'optim.decay_every', 'optim.rate',
                    'optim.head_rate', 'optim.decay_factor', 'model.width')  # fmt: skip
        not_negative = ('seed', 'first_step', 'eval_every', 'eval_tile',
                        'active.cycles', 'active.pairs', 'active.dropout',
                        'rank_weight', 'margin', 'figure_count',
                        'pretrain.steps', 'pretrain.rate',
                        'data.labels', 'data.fold', 'data.workers', 'data.tiny', 'optim.momentum',
                        'optim.weight_decay', 'optim.clip_norm', 'optim.warmup',
                        'model.frozen_blocks')  # fmt: skip
        for path in positive + not_negative:
            value = self.get(path)
            if not math.isfinite(value) or value < 0 or (path in positive and value == 0):
                rule = 'greater than 0' if path in positive else '0 or greater'
                raise UserError(f'config.{path}={value} must be {rule} and finite')
        if self.seed >= 2**32:
            raise UserError(f'config.seed={self.seed} must be below 2**32')
        if self.optim.momentum >= 1:
            raise UserError(f'config.optim.momentum={self.optim.momentum} must be below 1; use 0.9')
        if not 0 < self.data.validation < 1:
            raise UserError(
                f'config.data.validation={self.data.validation} must lie between 0 and 1: a part '
                'of training selects the best step, the rest is trained on; use 0.1'
            )
        if not 0 < self.data.test_share < 1:
            raise UserError(
                f'config.data.test_share={self.data.test_share} must lie between 0 and 1: a part '
                'of the references is tested on; use 0.2'
            )

    def _check_tile(self) -> None:
        tile, size = self.eval_tile, self.task.size
        if tile and len(self.task.target_shape()) != 2:
            raise UserError(
                f'config.eval_tile={tile} joins maps, and the output of the task '
                f'{type(self.task).__name__} is none; use 0'
            )
        cell = self.task.stride() or 1
        if tile % cell:
            raise UserError(
                f'config.eval_tile={tile} px must be a multiple of the stride {cell}; '
                f'use config.task.size, {size}'
            )

    def _check_active(self) -> None:
        active = self.active
        for name in ('start', 'share'):
            if (value := getattr(active, name)) > 1:
                raise UserError(f'config.active.{name}={value} is a share, 1 at most; use 0.1')
        if active.dropout >= 1:
            raise UserError(f'config.active.dropout={active.dropout} must be below 1; use 0.2')
        if self.mode != 'active':
            return
        active_task(self.task)
        if self.data.labels:
            raise UserError(
                f'config.data.labels={self.data.labels} fixes the labels, config.mode=active '
                'chooses them: use 0 and config.active.start'
            )
        if self.regime in ('ridge', 'ranking'):
            raise UserError(
                f'config.regime={self.regime} trains on no label, config.mode=active chooses '
                'labels to train on: use multitask or baseline'
            )

    def _check_pairs(self) -> None:
        levels, groups = self.task.levels, self.data.groups
        if self.needs_unlabeled and self.sampler == 'random' and groups * levels % 2:
            raise UserError(
                f'config.sampler=random pairs the {groups} x {levels} ranked images of a '
                f'mini-batch, an odd number: use config.data.groups={groups + 1}'
            )

    @property
    def _ranks(self) -> bool:
        return self.regime in ('multitask', 'ranking')

    @property
    def _joined(self) -> int:
        """Groups that are taken as one: an odd number of images makes no pairs."""
        paired = self._ranks and self.sampler == 'random'
        return 2 if paired and self.task.levels % 2 else 1

    @property
    def groups(self) -> int:
        """G, groups in a mini-batch: `data.groups`, two as one where odd levels are paired."""
        return self.data.groups // self._joined

    @property
    def ranked(self) -> int:
        """K, ranked images in a group; 0 where the regime ranks nothing in its last stage."""
        return self._joined * self.task.levels if self._ranks else 0

    @property
    def labeled(self) -> int:
        """R, labeled images in a group; 0 where the regime regresses nothing."""
        return 0 if self.regime == 'ranking' else self._joined * self.data.labeled_per_group

    @property
    def weight_of_ranking(self) -> float:
        """lambda of eq. 5; 1 where there is no other loss to weigh it against."""
        return 1.0 if self.regime == 'ranking' else self.rank_weight

    @property
    def needs_unlabeled(self) -> bool:
        """Whether any stage ranks."""
        return any(stage.ranked for stage in self.stages())

    def stages(self) -> list['Config']:
        """The runs that make up this one: `finetune` is ranking first (3.2)."""
        if self.regime != 'finetune' or self.init_from:
            return [self]
        optim = dataclasses.replace(self.optim, rate=self.pretrain.rate or self.optim.rate)
        steps = self.pretrain.steps or self.steps
        first = dataclasses.replace(
            self, regime='ranking', optim=optim, steps=steps, evaluate_test=False
        )
        return [first, self]

    def get(self, path: str) -> Any:
        """The value of a dotted field, `'optim.rate'`."""
        value: Any = self
        for name in path.split('.'):
            value = getattr(value, name)
        return value

    def set(self, path: str, text: str) -> None:
        """Gives a dotted field the value that a text says, of the type that it has.

        Raises AttributeError where there is no such field, ValueError where the text is none of it.
        """
        parent, _, name = path.rpartition('.')
        holder = self.get(parent) if parent else self
        kind = type(getattr(holder, name))
        setattr(holder, name, text.lower() in ('true', '1') if kind is bool else kind(text))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, as config.json holds them; the task carries its class's name."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))
        return fields | {'task': {'class': type(self.task).__name__} | fields['task']}


def arguments(
    text: str, *, allowed: tuple[str, ...], experiment: str, one_of: tuple[str, ...] = ()
) -> set[str]:
    """The arguments behind the colon of `--config=FILE.py:a,b`. Raises UserError on others."""
    given = {word.strip() for word in text.split(',') if word.strip()}
    for word in sorted(given - set(allowed)):
        name = pathlib.Path(experiment).name
        raise UserError(f'{name}:{word} is no argument of {name}; use {", ".join(allowed)}')
    if len(both := [word for word in one_of if word in given]) > 1:
        name = pathlib.Path(experiment).name
        raise UserError(f'{name}:{",".join(both)} names {len(both)} parts: give one of them')
    return given


def _check_types(part: Any, name: str) -> None:
    """The command line checks types itself; an experiment file may set anything.

    A task may have fields of more kinds than those of `Config`: they are its own to check.
    """
    named: dict[Any, type] = {kind.__name__: kind for kind in (bool, int, float, str)}
    for field in dataclasses.fields(part):
        # Under `from __future__ import annotations` a type is its name.
        value, kind = getattr(part, field.name), named.get(field.type, field.type)
        allowed = (float, int) if kind is float else (kind,)
        checked = kind in named.values() or dataclasses.is_dataclass(kind)
        if checked and type(value) not in allowed:
            word = getattr(kind, '__name__', kind)
            raise UserError(f'{name}.{field.name}={value!r} must be of type {word}')
        # JSON and Python have integers that no float and no array can hold.
        if type(value) is int and abs(value) >= 2**63:
            raise UserError(f'{name}.{field.name}={str(value)[:25]}... must be below 2**63 in size')
        if dataclasses.is_dataclass(value):
            _check_types(value, f'{name}.{field.name}')


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f'{name}={value} is unknown; use {", ".join(allowed)}')
