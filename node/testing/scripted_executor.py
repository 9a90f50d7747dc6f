"""An executor that does what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import trio

from node.interfaces import Execution, Executor, Output
from protocol import PeerId, Task


@dataclass(frozen=True, slots=True)
class Return:
    """Ends the execution with an output, or with this text as one."""

    output: Output | str


@dataclass(frozen=True, slots=True)
class Raise:
    """Ends the execution with an error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Hang:
    """Goes on until it is cancelled."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Waits, on trio's clock."""

    ms: float


@dataclass(frozen=True, slots=True)
class Until:
    """Waits for an event of the test."""

    event: trio.Event


@dataclass(frozen=True, slots=True)
class Report:
    """Reports progress."""

    fraction: float
    message: str = ""


Step = Return | Raise | Hang | Delay | Until | Report
Script = tuple[Step, ...]
Ending = Literal["", "returned", "raised", "cancelled"]


@dataclass(slots=True)
class SeenExecution:
    """What an executor saw of one execution.

    Attributes:
        task: what was asked.
        attempt: which attempt it was.
        holder: the peer that was to carry it out.
        ended: how it ended so far.
    """

    task: Task
    attempt: int
    holder: PeerId
    ended: Ending = ""


class ScriptedExecutor(Executor):
    """Plays scripts: steps in order.

    A script that does not say how to end returns the prompt, and so does a task without a script.

    ::

        executor = ScriptedExecutor()
        executor.on("slow", Delay(500), Return("done"))
        executor.then(Raise(OSError("no disk")), Return("ok"))

    Args:
        kind: the name that tasks ask for.
        slots: how many it carries out at once; nothing here checks it.
        safe: whether any peer may use it.

    Attributes:
        seen: every execution so far, in the order in which they began.
        most_at_once: how many there were at the same time at the most.
    """

    def __init__(self, kind: str = "scripted", *, slots: int = 16, safe: bool = True) -> None:
        self.kind = kind
        self.slots = slots
        self.safe = safe
        self.seen: list[SeenExecution] = []
        self.most_at_once = 0
        self._by_prompt: dict[str, list[Script]] = {}
        self._queue: list[Script] = []
        self._changed = trio.Event()

    def on(self, prompt: str, *script: Step) -> ScriptedExecutor:
        """Play a script for this prompt. Given several times: one after the other, and the last one from then on."""
        self._by_prompt.setdefault(prompt, []).append(script)
        return self

    def then(self, *outcomes: Step | Script) -> ScriptedExecutor:
        """Play each of these once, in order, for prompts without a script of their own."""
        self._queue.extend(outcome if isinstance(outcome, tuple) else (outcome,) for outcome in outcomes)
        return self

    @property
    def running(self) -> int:
        """How many executions have begun and not ended."""
        return sum(not execution.ended for execution in self.seen)

    async def wait_until_begun(self, count: int) -> None:
        """Return when so many executions have begun, in all."""
        await self._wait_until(lambda: len(self.seen) >= count)

    async def wait_until_ended(self, count: int) -> None:
        """Return when so many executions have ended, in all."""
        await self._wait_until(lambda: len(self.seen) - self.running >= count)

    async def execute(self, execution: Execution) -> Output:
        """Play the script for this execution.

        Raises:
            Exception: as the script says.
        """
        seen = SeenExecution(execution.task, execution.attempt, execution.holder)
        self.seen.append(seen)
        self.most_at_once = max(self.most_at_once, self.running)
        self._tell_change()
        ended: Ending = "cancelled"
        try:
            output = await _play(self._script_for(execution.task.prompt), execution)
            ended = "returned"
            return output
        except Exception:
            ended = "raised"
            raise
        finally:
            seen.ended = ended
            self._tell_change()

    def _script_for(self, prompt: str) -> Script:
        scripts = self._by_prompt.get(prompt)
        if scripts is not None:
            return scripts.pop(0) if len(scripts) > 1 else scripts[0]
        return self._queue.pop(0) if self._queue else ()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


async def _play(script: Script, execution: Execution) -> Output:
    await trio.lowlevel.checkpoint()
    for step in script:
        match step:
            case Return(Output() as output):
                return output
            case Return(str() as text):
                return Output(text)
            case Raise(error):
                raise error
            case Hang():
                await trio.sleep_forever()
            case Delay(ms):
                await trio.sleep(ms / 1000)
            case Until(event):
                await event.wait()
            case Report(fraction, message):
                execution.progress(fraction, message)
    return Output(execution.task.prompt)
