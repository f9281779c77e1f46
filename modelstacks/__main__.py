"""`python -m modelstacks` is the `modelstacks` command."""

from modelstacks.cli.main import run

if __name__ == "__main__":
    run()
