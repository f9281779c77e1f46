"""`python -m modelstacks.cloud.control_plane --port P [--log FILE]`: serve until SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from modelstacks.cloud.control_plane.server import serve


def main() -> int:
    """Run the server; 4 where the port cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m modelstacks.cloud.control_plane")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(arguments.port, arguments.log)
    except (OSError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code in (0, None):
            return 0
        sys.stderr.write(f"port {arguments.port} on localhost cannot be used: {error}\n")
        return 4
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
