"""Bytes from text: compilers, linker, cache, and the processes that run them."""
