"""How much one request may ask for."""

from __future__ import annotations

from typing import Final

# A list of a thousand summaries stays below two megabytes.
MAX_LISTED: Final = 1_000
DEFAULT_LISTED: Final = 100
# As MAX_LISTED: the answer holds a summary of each.
MAX_BATCH: Final = 1_000
# Proxies and clients give up on silent connections after a minute or more.
MAX_WAIT_S: Final = 60.0
# A commit takes milliseconds; a client must not hang without a word while a disk is full or a server away.
SAVE_PATIENCE_S: Final = 10.0
# A year: longer deadlines are mistakes of unit.
MAX_DEADLINE_S: Final = 365 * 24 * 3600.0
# Room for the names of fields and for what JSON escapes, beside the largest task.
ENVELOPE_BYTES: Final = 1024 * 1024
