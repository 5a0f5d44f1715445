"""Counter-based randomness: which numbers an example of a step draws from."""

import numpy as np

# Streams of random draws: one number for each use, so that no two uses share a counter.
SPLIT, RANKED, LABELED, EVALUATE, FIGURE, ACQUIRE = range(6)


def counter_rng(seed: int, stream: int, step: int, index: int) -> np.random.Generator:
    """The generator of one example of one step: a function of its four numbers alone."""
    # The lowest word counts the blocks drawn, so two examples never overlap.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, stream, step, index]))
