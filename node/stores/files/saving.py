"""Saves with patience: what cannot be written now is tried again until it can, and the reason is told meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from protocol import ErrorCode, PeertaskError

log = structlog.get_logger(__name__)

# Somebody who makes room wants the node to go on at once, and a full disk must not keep a processor busy.
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 5.0
# A node that stops waits this long for a disk that does not work: whoever stops it is waiting too.
CLOSE_PATIENCE_S: Final = 5.0

_REMEDIES = {
    errno.ENOSPC: "Make room on the disk",
    errno.EDQUOT: "Make room within the quota of this user",
    errno.EROFS: "Mount the file system so that it can be written",
    errno.EACCES: "Let this user write there",
    errno.EPERM: "Let this user write there",
}


class Saver:
    """Runs functions that write files, one at a time and off the event loop.

    Args:
        folder: where they write, for messages.

    Attributes:
        failure: why the last attempt did not work; None when it did.
    """

    def __init__(self, folder: Path) -> None:
        self.failure: PeertaskError | None = None
        self._folder = folder
        # Not trio's own limiter: functions of tasks may fill that one.
        self._limiter = trio.CapacityLimiter(1)
        self._closing = trio.Event()
        self._gives_up_at = float("inf")

    def close(self) -> None:
        """Be patient no longer than `CLOSE_PATIENCE_S` from now on."""
        self._gives_up_at = trio.current_time() + CLOSE_PATIENCE_S
        self._closing.set()

    async def save(self, write: Callable[[], None]) -> bool:
        """Call a function in a thread until it raises no OSError; return False when patience is at its end."""
        wait_s = FIRST_RETRY_S
        while not await self._attempt(write):
            if trio.current_time() >= self._gives_up_at:
                return False
            await self._pause(wait_s)
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)
        return True

    async def _attempt(self, write: Callable[[], None]) -> bool:
        try:
            await trio.to_thread.run_sync(write, limiter=self._limiter)
        except OSError as error:
            self._note(error)
            return False
        if self.failure is not None:
            self.failure = None
            log.info("tasks are saved again", folder=str(self._folder))
        return True

    def _note(self, error: OSError) -> None:
        begins = self.failure is None
        remedy = _REMEDIES.get(error.errno or 0, "Put that right")
        self.failure = PeertaskError(
            f"tasks cannot be saved in {self._folder}: {error.strerror or error} ({error.filename or 'its folders'})",
            code=ErrorCode.STORE_FAILED,
            remedy=f"{remedy}; the node tries again by itself, and nothing is lost as long as it runs",
        )
        if begins:
            log.error("tasks cannot be saved", reason=str(self.failure))

    async def _pause(self, wait_s: float) -> None:
        """Wait before another attempt; when closing begins there is one at once."""
        if self._closing.is_set():
            await trio.sleep(min(wait_s, CLOSE_PATIENCE_S / 10))
            return
        with trio.move_on_after(wait_s):
            await self._closing.wait()
