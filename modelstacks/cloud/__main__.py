"""The daemon: `python -m modelstacks.cloud --project DIR [--port PORT]`. modelstacks.cloud.client runs it."""

from __future__ import annotations

import sys

from modelstacks.cloud.daemon.daemon import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
