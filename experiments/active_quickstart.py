"""Active learning on embedded drawn scenes: no download, no weights, minutes on a CPU.

    python -m rank_ssl.main --config=experiments/active_quickstart.py --workdir=runs/active

trains on a tenth of the scenes, labels the tenth that it is least certain of, and goes on so three
times (Algorithm 1). --config.active.rule=random is the baseline; both, as a figure:

    python -m rank_ssl.curves --config=experiments/active_quickstart.py --arms=random,certainty \
        --seeds=2 --workdir=runs/active_curves

Settings are those of experiments/quickstart.py, with the ranked crops cut from labeled scenes
alone: of scenes whose order it has been taught a network is certain. The argument `smoke` makes it
seconds.
"""

from experiments import _active, quickstart
from rank_ssl import config

ARGUMENTS = ('smoke',)


def get_config(text: str = '') -> config.Config:
    """The run of the paper's rule; `smoke` shrinks it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    made = quickstart.get_config(text)
    _active.ask(made)
    made.active.cycles = 3
    made.steps = 100
    if 'smoke' in given:
        _active.smoke(made, cycles=2)  # the second goes on from a cycle that was asked itself
    return made
