"""The garbage collector of a process that is a node."""

from __future__ import annotations

import gc

# A busy node makes some 30 objects a task that a collection looks at: one every thousand tasks costs nothing that
# shows, and keeps what really is cyclic (exceptions, cancelled scopes) below a few megabytes.
COLLECT_AFTER_OBJECTS = 50_000
COLLECT_MIDDLE_AFTER = 20
COLLECT_ALL_AFTER = 100


def tune_collector() -> None:
    """Set the cyclic garbage collector for a process that is a node and nothing else.

    Records are kept by the hundred thousand and hold no cycles, so the default of a collection every 700 objects
    walks over them for nothing. What is there at the start is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, COLLECT_MIDDLE_AFTER, COLLECT_ALL_AFTER)
