"""`torchrun` with the exit code of the process that failed first, where torchrun's own is always 1.

A job that was refused, or stopped with a checkpoint, is then no failure to be tried again.
"""

from __future__ import annotations

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from hydraprune.utils.signals import REQUEUE


def main() -> None:
    """Run `torchrun` with the words of the command line."""
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        # As a shell has it: 128 + the number of the signal that killed it.
        raise SystemExit(first.exitcode if first.exitcode >= 0 else 128 - first.exitcode) from None
    except SignalException:
        # It has sent the signal on, and the processes have stopped with a checkpoint.
        raise SystemExit(REQUEUE) from None


if __name__ == "__main__":
    main()
