"""Becomes another program that dies when its parent dies: `python -I -S launch.py PARENT_PID PROGRAM ARG...`.

Run as a file before anything else is imported. A preexec_fn would do the same in a fork of the daemon,
whose threads make that unsafe.
"""

import os
import signal
import sys


def main() -> None:
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  becoming the program is the purpose


if __name__ == "__main__":
    main()
