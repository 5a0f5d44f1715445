"""Active learning for crowd counting on ShanghaiTech A (section 6.2.3, Fig. 7).

    python -m rank_ssl.main --config=experiments/active_crowd_shtech.py --workdir=runs/active

trains on a tenth of the training images, labels the tenth that it is least certain of (eq. 15),
and so on (Algorithm 1); --config.active.rule=random is the baseline. The curves of both:

    python -m rank_ssl.curves --config=experiments/active_crowd_shtech.py --arms=random,certainty \
        --seeds=3 --workdir=runs/active_curves

Data, weights and the other settings are those of experiments/crowd_shtech.py. Arguments, behind a
colon and combined by comma:

    A (default) or B   the part of the data set
    evidence           a scale for two CPU cores
    smoke              seconds, on tiny made data, without weights

The paper's settings and ours:

    setting              paper                         here
    first labels         10 % of the training set      the same
    T, S, K              9, 10 %, 100                  the same; K pairs of 10 anchors x 5 squares
    trained from         the last parameters           the same (active.restart: the initial ones)
    steps of a cycle     not given                     2,000
    optimiser            not given                     its momentum starts anew in each cycle
    ranked in training   not given                     crops of the labeled images
    parameters asked     not given                     those that validation chooses
"""

import dataclasses

from experiments import _active, crowd_shtech
from rank_ssl import config
from rank_ssl.tasks.crowd import Crowd

ARGUMENTS = crowd_shtech.ARGUMENTS


def get_config(text: str = '') -> config.Config:
    """The paper's run on part A, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__, one_of=('A', 'B'))
    made = crowd_shtech.get_config(text)
    _active.ask(made)
    made.steps = 2_000
    if 'evidence' in given:
        _active.evidence(made, steps=160)
        assert isinstance(made.task, Crowd)
        made.task = dataclasses.replace(made.task, asked='nested')  # 15 forwards in place of 50
    if 'smoke' in given:
        _active.smoke(made)
    return made
