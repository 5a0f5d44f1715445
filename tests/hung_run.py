"""rank_ssl.main, where no batch comes from step HANG_AT on: started as a script, as main is.

Where HANG_IN_SAVE is set, no save ends either. A worker process reads this file as well before it
makes batches.
"""

import os
import runpy
import time

from rank_ssl import checkpoint
from rank_ssl.data import Batches

FIRST = int(os.environ['HANG_AT'])
made = Batches.__getitem__


def hangs(self, step):
    if int(step) >= FIRST - 1:
        time.sleep(600)
    return made(self, step)


Batches.__getitem__ = hangs
if os.environ.get('HANG_IN_SAVE'):
    checkpoint.save = lambda *arguments: time.sleep(600)

if __name__ == '__main__':
    runpy.run_module('rank_ssl.main', run_name='__main__')
