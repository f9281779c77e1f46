"""What the CDK CLI runs: every spec in deployments/ becomes a stack."""

from pathlib import Path

from modelstacks.cdk import main

if __name__ == "__main__":
    raise SystemExit(main(Path(__file__).resolve().parent))
