"""One file per regression problem."""

from rank_ssl.tasks.crowd import Crowd

__all__ = ['Crowd']
