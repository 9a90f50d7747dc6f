"""Makes a run of trio come out the same each time: all that is left to chance is drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio._core._run as scheduler

from protocol import draw_ids_from

# trio has no public way to fix its order of tasks; this is how its own plug-in for hypothesis does it.
_scheduler: Any = scheduler


@contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Draw from one seed, for the length of the context: trio's order of tasks, `random`, and the ids of tasks.

    Yields:
        A generator of its own for whoever makes the run.
    """
    rng = random.Random(seed)
    before = random.getstate(), _scheduler._r, _scheduler._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001 - see above
    random.seed(rng.getrandbits(64))
    _scheduler._r = random.Random(rng.getrandbits(64))  # noqa: SLF001 - as above
    _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001 - as above
    ids = random.Random(rng.getrandbits(64))
    try:
        with draw_ids_from(ids.randbytes):
            yield rng
    finally:
        state, _scheduler._r, _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # noqa: SLF001 - as above
        random.setstate(state)
