"""A lock that costs nothing when it is free, in the place of those that libp2p takes for each message."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.net.errors import UnsupportedLibp2p
from node.net.locks import PROMPT_TURNS, PromptLock, make_prompt


class Passes(trio.abc.Instrument):
    """Counts the passes of the scheduler."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - the interface of trio
        """Count one."""
        self.count += 1


async def test_a_free_lock_lets_no_pass_of_the_scheduler_go_by() -> None:
    """Except one in so many, so that a peer that floods one connection cannot keep the others waiting."""
    lock, passes = PromptLock(), Passes()
    trio.lowlevel.add_instrument(passes)
    for _ in range(PROMPT_TURNS - 1):
        async with lock:
            pass
    assert passes.count == 0
    async with lock:
        pass
    assert passes.count == 1
    trio.lowlevel.remove_instrument(passes)


async def test_only_one_has_the_lock_at_a_time() -> None:
    """Whoever comes while it is taken waits, and each gets it."""
    lock, inside, seen = PromptLock(), [], 0

    async def enter(name: int) -> None:
        nonlocal seen
        async with lock:
            inside.append(name)
            await trio.lowlevel.checkpoint()
            assert inside == [name]
            inside.remove(name)
            seen += 1

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for name in range(20):
                nursery.start_soon(enter, name)
    assert seen == 20
    assert repr(lock) == "<PromptLock free waiting=0>"


async def test_whoever_is_cancelled_while_waiting_leaves_the_lock_to_the_others() -> None:
    """The lock goes to whoever still wants it."""
    lock, got_it = PromptLock(), trio.Event()

    async def enter(scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                got_it.set()

    given_up = trio.CancelScope()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with lock:
                nursery.start_soon(enter, given_up)
                nursery.start_soon(enter, trio.CancelScope())
                await wait_all_tasks_blocked()
                given_up.cancel()
            await got_it.wait()


async def test_an_error_under_the_lock_gives_it_back() -> None:
    """As leaving in good order does."""
    lock = PromptLock()

    async def fail() -> None:
        async with lock:
            raise ValueError("under the lock")

    with pytest.raises(ValueError, match="under the lock"):
        await fail()
    assert repr(lock) == "<PromptLock free waiting=0>"


async def test_a_library_without_the_lock_is_refused() -> None:
    """Another version may lock in another way: replacing nothing in silence would hide that."""
    with pytest.raises(UnsupportedLibp2p, match="has no lock named guard"):
        make_prompt(SimpleNamespace(guard=object()), "guard")
