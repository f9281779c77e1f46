"""`python -m modelstacks.cloud.account --listening FD [--log FILE]`: serve until SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from modelstacks.cloud.account.server import serve


def main() -> int:
    """Run the server on the socket that the parent opened."""
    parser = argparse.ArgumentParser(prog="python -m modelstacks.cloud.account")
    parser.add_argument("--listening", type=int, required=True, help="a Unix socket's file descriptor")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(arguments.listening, arguments.log)
    except OSError as error:
        sys.stderr.write(f"the control plane's socket cannot be used: {error}\n")
        return 4
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
