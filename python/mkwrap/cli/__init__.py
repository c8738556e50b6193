"""The command line: `mkwrap` and `python -m mkwrap`. One file per command; none imports torch before it must."""
