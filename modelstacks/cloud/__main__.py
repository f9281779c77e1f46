"""`python -m modelstacks.cloud --project DIR [--port PORT]`: the daemon, started by modelstacks.cloud.client."""

from __future__ import annotations

import sys

from modelstacks.cloud.daemon import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
