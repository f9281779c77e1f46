"""How a process that touches somebody else's model is run: what it may see, reach and use up.

    Policy      what one process may do: folders, ports, limits
    Sandbox     the mechanism that enforces it on this machine, chosen once by `choose`
    launch.py   runs inside: restricts itself, then becomes the program
    hold.py     runs outside of bwrap: keeps SIGTERM for the program

    mechanism    processes           files                network
    bubblewrap   own pid namespace   own mount namespace  own namespace; Landlock and seccomp
    landlock     own process group   Landlock, seccomp    Landlock and seccomp
    none         own process group   not restricted       not restricted

Resource limits, an environment made from nothing and an interpreter that imports nothing from the working
folder apply with each of them.
"""

from modelstacks.adapters.sandbox.interpreters import interpreter_paths, package_paths
from modelstacks.adapters.sandbox.mechanism import FIX, WISHES, Sandbox, choose, wish
from modelstacks.adapters.sandbox.policy import Limits, Policy, machine_memory
from modelstacks.adapters.sandbox.process import Ended, run, signal_of

__all__ = [
    "FIX",
    "WISHES",
    "Ended",
    "Limits",
    "Policy",
    "Sandbox",
    "choose",
    "interpreter_paths",
    "machine_memory",
    "package_paths",
    "run",
    "signal_of",
    "wish",
]
