"""`python -m mkwrap`: where the C++ side of the installed package is."""

from __future__ import annotations

import argparse
import sys

from mkwrap.toolchain.cache import package_version
from mkwrap.toolchain.headers import cmake_dir, include_dir


def main() -> None:
    """Print what was asked for, one line each."""
    parser = argparse.ArgumentParser(prog="python -m mkwrap", description=__doc__)
    parser.add_argument("--cmake-dir", action="store_true", help="folder to pass to CMake as mkwrap_DIR")
    parser.add_argument("--include-dir", action="store_true", help="folder of mkwrap/abi.h and mkwrap/mkwrap.hpp")
    parser.add_argument("--version", action="store_true")
    options = parser.parse_args()
    lines = []
    if options.cmake_dir:
        lines.append(str(cmake_dir()))
    if options.include_dir:
        lines.append(str(include_dir()))
    if options.version or not lines:
        lines.append(package_version())
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
