"""Becomes bwrap with SIGTERM held back: `python -I -S hold.py PROGRAM ARG...`.

A signal to the process group must end the program and not bwrap, which would take the program with it at
once. Blocked, it stays pending in each of them; launch.py, inside, takes it off again.
"""

import os
import signal
import sys

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  becoming the program is the purpose
