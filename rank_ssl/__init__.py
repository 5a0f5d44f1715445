"""Learning to rank as a self-supervised auxiliary task for image regression, in JAX."""

__version__ = '0.1.0'
