"""How a contest measures arguments that a model finds out of the cache. Needs no IR: runs in the measuring process."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mkwrap.tune.contest import Memory

# Arguments that are cold in a model are rotated over copies until these hold so many times the cache …
_FOOTPRINT = 2
# … unless they are a smaller part of it than this: the time to fetch them is lost in the time of a launch.
_LEAST_PART = 1 / 32
_MOST_BYTES = 1 << 28


def copies(memories: Sequence[Memory], cache_bytes: int, most: int) -> int:
    """Return how many copies of its rotated memories a contest rotates over, 1 … max(1, most).

    So many that they hold twice the cache, as far as 256 MiB allow; 1 where those are less than 1/32 of it.
    """
    size = sum(memory.nbytes for memory in memories if memory.rotated)
    if size == 0 or size < _LEAST_PART * cache_bytes:
        return 1
    wanted = min(math.ceil(_FOOTPRINT * cache_bytes / size), _MOST_BYTES // size)
    return max(1, min(wanted, most))
