"""Runs benchmarks one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from node.bench.figures import Figure
from node.bench.sections import SECTIONS
from node.collector import tune_collector
from protocol import ErrorCode, PeertaskError

DEFAULT_SECONDS = 5.0


async def figures(sections: Sequence[str] = (), seconds: float = DEFAULT_SECONDS) -> AsyncIterator[Figure]:
    """Yield the figures of the named benchmarks, or of all, as they are measured.

    Args:
        sections: names out of `SECTIONS`.
        seconds: how long each measurement of a rate takes.

    Raises:
        PeertaskError: code INVALID_CONFIG, when a name is unknown.
    """
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise PeertaskError(
            f"there is no benchmark {unknown[0]!r}",
            code=ErrorCode.INVALID_CONFIG,
            remedy=f"The benchmarks are: {', '.join(SECTIONS)}",
        )
    tune_collector()
    for name in sections or SECTIONS:
        for figure in await SECTIONS[name](seconds):
            yield figure
