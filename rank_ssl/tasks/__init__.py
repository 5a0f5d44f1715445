"""One file per regression problem."""

from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA

__all__ = ['IQA', 'Crowd']
