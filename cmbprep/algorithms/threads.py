"""Independent pieces of work, side by side.

numpy and scipy let go of Python's lock while they compute, so that threads do. Each piece is
computed as it would be alone, so the results do not depend on how many processors there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["THREADS", "map_in_threads"]

#: As many as a registration is given processors (``--omp-nthreads``) where there are two.
THREADS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for each item, on :data:`THREADS` threads; results in the items' order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))
