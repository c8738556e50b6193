"""`python -m mkwrap`: the same command line as `mkwrap`."""

from __future__ import annotations

from mkwrap.cli.app import run

if __name__ == "__main__":
    run()
