"""What peers ask of a node, and what it answers: frame by frame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.interfaces import Channel
from node.testing import (
    Delay,
    Hang,
    HeldStore,
    MemoryHub,
    MemoryNetwork,
    Raise,
    RecordingHandler,
    Report,
    Return,
    ScriptedExecutor,
    Until,
    make_task,
    open_memory_hub,
)
from node.testing.scripted_executor import Script
from protocol import (
    MAX_MESSAGE_CHARS,
    Accept,
    Attach,
    Cancel,
    ErrorCode,
    Frame,
    Limits,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Progress,
    Reject,
    Result,
    Submit,
    Task,
    TaskStatus,
    new_task_id,
)
from tests.node.memory_node import MemoryNode

LIMIT_S = 60.0


class Client:
    """A peer that says what the test lets it say."""

    def __init__(self, hub: MemoryHub, name: str) -> None:
        self.network = MemoryNetwork(hub, name)
        self.peer_id = self.network.peer_id
        self.heard = RecordingHandler()

    @asynccontextmanager
    async def connected(self, node: MemoryNode) -> AsyncIterator[Client]:
        """Run, with a session with the node."""
        async with self.network.running(RecordingHandler(), self.heard, lambda _peer: PeerAdvert()):
            await self.network.connect(node.network.addresses[0])
            yield self

    @property
    def channel(self) -> Channel:
        """The session with the node."""
        (channel,) = self.network.channels()
        return channel

    def task(self, prompt: str = "a prompt", **fields: Any) -> Task:
        """A task of this peer."""
        return make_task(prompt, **{"sender": self.peer_id, "kind": "scripted", **fields})

    async def ask(self, frame: Frame, answers: int = 1) -> list[Frame]:
        """Send a frame, and return so many answers that follow."""
        before = len(self.heard.frames)
        self.channel.send(frame)
        with trio.fail_after(LIMIT_S):
            return (await self.heard.wait_for_frames(before + answers))[before:]

    async def refusal(self, frame: Frame) -> Reject:
        """Send a frame, and return the refusal that it meets."""
        (answer,) = await self.ask(frame)
        assert isinstance(answer, Reject)
        return answer


class Scene:
    """A node, its executor and a client of it."""

    def __init__(self, hub: MemoryHub, **options: Any) -> None:
        self.hub = hub
        self.executor = ScriptedExecutor(slots=2)
        self.node = MemoryNode(hub, "node", [self.executor, *options.pop("executors", ())], **options)
        self.client = Client(hub, "client")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scene]:
        """Run everything."""
        async with self.node.running(), self.client.connected(self.node):
            yield self

    async def reconnect(self) -> None:
        """Break the link and mend it."""
        self.hub.cut(self.node.peer_id, self.client.peer_id)
        self.hub.heal(self.node.peer_id, self.client.peer_id)
        with trio.fail_after(LIMIT_S):
            while not self.client.network.channels():
                await trio.sleep(0.001)


@asynccontextmanager
async def scene_with(**options: Any) -> AsyncIterator[Scene]:
    """A scene that runs."""
    async with open_memory_hub() as hub, Scene(hub, **options).running() as scene:
        yield scene


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A scene that runs."""
    async with scene_with() as scene:
        yield scene


# --- submitting ------------------------------------------------------------------------------------------------------


async def test_a_task_is_accepted_reported_on_and_answered(autojump_clock: MockClock, scene: Scene) -> None:
    """Accept, Progress and Result, with the numbers of the facts, growing."""
    scene.executor.then((Delay(10), Report(0.5, "half"), Return("done")))
    task = scene.client.task()
    accepted, progress, result = await scene.client.ask(Submit(task), 3)
    assert accepted == Accept(task.id, 1)
    assert isinstance(progress, Progress)
    assert (progress.fraction, progress.message, progress.seq) == (0.5, "half", 4)
    assert isinstance(result, Result)
    assert result.result is not None
    assert (result.result.result, result.seq) == ("done", 5)


async def test_a_task_in_the_name_of_another_peer_is_refused_and_not_recorded(
    autojump_clock: MockClock, scene: Scene
) -> None:
    """The sender must be the authenticated peer of the connection."""
    task = scene.client.task(sender="somebody else")
    refused = await scene.client.refusal(Submit(task))
    assert refused.code is ErrorCode.FORBIDDEN
    assert "somebody else" in refused.message
    assert "client" in refused.message
    assert scene.node.manager.list_tasks() == []
    assert scene.executor.seen == []


async def test_a_kind_that_is_not_there_or_not_open_is_refused(autojump_clock: MockClock) -> None:
    """NO_EXECUTOR names what the peer may use, FORBIDDEN what the operator can do; nothing is recorded."""
    async with scene_with(executors=[ScriptedExecutor("private", safe=False)]) as scene:
        unknown = await scene.client.refusal(Submit(scene.client.task(kind="dance")))
        assert unknown.code is ErrorCode.NO_EXECUTOR
        assert "echo, scripted" in unknown.message
        assert "private" not in unknown.message
        closed = await scene.client.refusal(Submit(scene.client.task(kind="private")))
        assert closed.code is ErrorCode.FORBIDDEN
        assert scene.node.manager.list_tasks() == []
        scene.node.allow["*"] = (scene.client.peer_id,)
        assert scene.node.gateway.kinds_for(scene.client.peer_id) == ("echo", "private", "scripted")
        _, result = await scene.client.ask(Submit(scene.client.task(kind="private")), 2)
        assert isinstance(result, Result)


async def test_a_refusal_fits_its_frame_however_much_there_is_to_say(autojump_clock: MockClock) -> None:
    """A node with hundreds of kinds with long names says so as far as the protocol has room."""
    many = [ScriptedExecutor(f"kind-{number}-{'x' * 100}") for number in range(200)]
    async with scene_with(executors=many) as scene:
        refused = await scene.client.refusal(Submit(scene.client.task(kind="dance")))
        assert refused.code is ErrorCode.NO_EXECUTOR
        assert len(refused.message) == MAX_MESSAGE_CHARS
        assert isinstance((await scene.client.ask(Submit(scene.client.task()), 2))[1], Result)


async def test_a_peer_may_have_so_many_tasks_open(autojump_clock: MockClock) -> None:
    """BUSY with a time to come back; another peer is not held up; room is there when a task ends."""
    async with scene_with(limits=Limits(in_flight=2)) as scene:
        scene.executor.on("a prompt", Hang())
        tasks = [scene.client.task() for _ in range(2)]
        for task in tasks:
            await scene.client.ask(Submit(task))
        busy = await scene.client.refusal(Submit(scene.client.task()))
        assert busy.code is ErrorCode.BUSY
        assert busy.retry_after_ms
        async with Client(scene.hub, "another").connected(scene.node) as another:
            (accepted,) = await another.ask(Submit(another.task()))
            assert isinstance(accepted, Accept)
        await scene.client.ask(Cancel(tasks[0].id))
        assert isinstance((await scene.client.ask(Submit(scene.client.task())))[0], Accept)


@pytest.mark.parametrize(("fields", "code"), [({"depends_on": (new_task_id(),)}, ErrorCode.INVALID_TASK)])
async def test_what_the_node_cannot_do_is_refused_in_words(
    autojump_clock: MockClock, scene: Scene, fields: dict[str, Any], code: ErrorCode
) -> None:
    """The refusal of the manager passes through with its code, its message and what to do."""
    refused = await scene.client.refusal(Submit(scene.client.task(**fields)))
    assert refused.code is code
    assert "depends_on" in refused.message


async def test_a_node_that_is_stopping_refuses_with_draining(autojump_clock: MockClock, scene: Scene) -> None:
    """The peer may ask another one, or again later."""
    scene.node.manager.draining = True
    assert (await scene.client.refusal(Submit(scene.client.task()))).code is ErrorCode.DRAINING


async def test_nothing_is_accepted_before_it_is_saved(autojump_clock: MockClock) -> None:
    """The disk decides when the peer is told: of the task, and of its end."""
    store = HeldStore()
    async with scene_with(store=store) as scene:
        store.hold()
        task = scene.client.task()
        scene.client.channel.send(Submit(task))
        await wait_all_tasks_blocked()
        assert scene.client.heard.frames == []
        store.commit()
        assert await scene.client.heard.wait_for_frames(1) == [Accept(task.id, 1)]
        await scene.executor.wait_until_ended(1)
        await wait_all_tasks_blocked()
        assert len(scene.client.heard.frames) == 1
        store.release()
        assert isinstance((await scene.client.heard.wait_for_frames(2))[1], Result)


async def test_a_task_that_is_being_saved_can_be_submitted_again_on_another_session(autojump_clock: MockClock) -> None:
    """Both requests are one task; the session that is open hears of it."""
    store = HeldStore()
    async with scene_with(store=store) as scene:
        store.hold()
        task = scene.client.task()
        scene.client.channel.send(Submit(task))
        await wait_all_tasks_blocked()
        await scene.reconnect()
        scene.client.channel.send(Submit(task))
        await wait_all_tasks_blocked()
        assert len(scene.executor.seen) == 1
        store.release()
        accepted, result = await scene.client.heard.wait_for_frames(2)
        assert accepted == Accept(task.id, 1)
        assert isinstance(result, Result)


@pytest.mark.parametrize(
    ("script", "seq", "code"),
    [
        ((Return("done"),), 4, None),
        ((Report(0.5, "half"), Return("done")), 5, None),
        ((Raise(ValueError("no")),), 4, ErrorCode.EXECUTION_FAILED),
    ],
    ids=["result", "progress", "failure"],
)
async def test_a_task_that_has_ended_when_its_first_facts_are_saved_is_answered_by_its_result_alone(
    autojump_clock: MockClock, script: Script, seq: int, code: ErrorCode | None
) -> None:
    """It says Accept too; a task that failed is told from one that the store refused."""
    store = HeldStore()
    async with scene_with(store=store) as scene:
        store.hold()
        scene.executor.then(script)
        task = scene.client.task()
        scene.client.channel.send(Submit(task))
        await scene.executor.wait_until_ended(1)
        await wait_all_tasks_blocked()
        assert scene.client.heard.frames == []
        hits, misses = scene.node.manager.lookup_hits, scene.node.manager.lookup_misses
        store.commit_together(len(store.held))
        assert (scene.node.manager.lookup_hits, scene.node.manager.lookup_misses) == (hits, misses)
        await wait_all_tasks_blocked()
        (result,) = scene.client.heard.frames
        assert isinstance(result, Result)
        assert result.seq == seq
        assert (result.failure.code if result.failure else None) is code
        assert scene.node.feed._by_task == {}  # noqa: SLF001 - what is held on to shows nowhere else


async def test_a_task_that_is_under_way_when_its_first_facts_are_saved_is_accepted_then(
    autojump_clock: MockClock,
) -> None:
    """Its requester need not wait for the end to know that the task is there."""
    store, gate = HeldStore(), trio.Event()
    async with scene_with(store=store) as scene:
        store.hold()
        scene.executor.then((Until(gate), Return("done")))
        task = scene.client.task()
        scene.client.channel.send(Submit(task))
        await scene.executor.wait_until_begun(1)
        await wait_all_tasks_blocked()
        store.commit_together(len(store.held))
        await wait_all_tasks_blocked()
        assert scene.client.heard.frames == [Accept(task.id, 1)]
        gate.set()
        await scene.executor.wait_until_ended(1)
        await wait_all_tasks_blocked()
        store.commit_together(len(store.held))
        await wait_all_tasks_blocked()
        assert [type(frame) for frame in scene.client.heard.frames] == [Accept, Result]


@pytest.mark.parametrize(("waiting", "code"), [(False, None), (True, ErrorCode.CANCELLED)])
async def test_a_cancel_that_comes_before_the_first_facts_are_saved_is_answered_by_the_result_alone(
    autojump_clock: MockClock, code: ErrorCode | None, *, waiting: bool
) -> None:
    """With whatever came first; that nothing came of the task is no refusal."""
    store = HeldStore()
    async with scene_with(store=store) as scene:
        scene.executor.on("endless", Hang())
        for _ in range(scene.executor.slots if waiting else 0):
            await scene.client.ask(Submit(scene.client.task("endless")))
        before = len(scene.client.heard.frames)
        store.hold()
        task = scene.client.task()
        for frame in (Submit(task), Cancel(task.id)):
            scene.client.channel.send(frame)
            await wait_all_tasks_blocked()
        assert len(scene.client.heard.frames) == before
        store.commit_together(len(store.held))
        await wait_all_tasks_blocked()
        (result,) = scene.client.heard.frames[before:]
        assert isinstance(result, Result)
        assert (result.failure.code if result.failure else None) is code


# --- coming back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask_again", [Submit, Attach], ids=["submit", "attach"])
async def test_a_peer_that_comes_back_gets_what_it_missed(
    autojump_clock: MockClock, scene: Scene, ask_again: type[Frame]
) -> None:
    """The result alone when it is there; Accept, and the result when it comes; the task runs once."""
    gate = trio.Event()
    scene.executor.then((Until(gate), Return("done")))
    task = scene.client.task()
    frame = Submit(task) if ask_again is Submit else Attach(task.id)
    await scene.client.ask(Submit(task))
    await scene.reconnect()
    (accepted,) = await scene.client.ask(frame)
    assert isinstance(accepted, Accept)
    gate.set()
    with trio.fail_after(LIMIT_S):
        result = (await scene.client.heard.wait_for_frames(3))[2]
    assert isinstance(result, Result)
    for _ in range(2):
        assert await scene.client.ask(frame) == [result]
    await scene.reconnect()
    assert await scene.client.ask(frame) == [result]
    await wait_all_tasks_blocked()
    assert scene.client.heard.frames[-3:] == [result, result, result]
    assert len(scene.executor.seen) == 1


async def test_nobody_can_attach_to_a_task_of_another(autojump_clock: MockClock, scene: Scene) -> None:
    """An unknown task and another peer's are told apart in no way: NOT_FOUND."""
    async with Client(scene.hub, "eve").connected(scene.node) as eve:
        task = scene.client.task()
        await scene.client.ask(Submit(task), 2)
        unknown = new_task_id()
        other = await eve.refusal(Attach(task.id))
        assert other.code is ErrorCode.NOT_FOUND
        assert other.message.replace(task.id, "it") == (await eve.refusal(Attach(unknown))).message.replace(
            unknown, "it"
        )


async def test_a_peer_that_comes_back_again_and_again_leaves_no_sessions_behind(
    autojump_clock: MockClock, scene: Scene
) -> None:
    """A long task and a flapping link: the node holds on to the open session, and to a former one at the most."""
    scene.executor.then(Hang())
    task = scene.client.task()
    await scene.client.ask(Submit(task))
    for _ in range(20):
        await scene.reconnect()
        await scene.client.ask(Attach(task.id))
    assert len(scene.node.feed._by_task[task.id]) <= 2  # noqa: SLF001 - what is held on to shows nowhere else
    scene.client.channel.send(Cancel(task.id))
    with trio.fail_after(LIMIT_S):
        await scene.client.heard.wait_until(lambda: isinstance(scene.client.heard.frames[-1], Result))


async def test_asking_for_a_finished_task_again_leaves_no_listener_behind(
    autojump_clock: MockClock, scene: Scene
) -> None:
    """Its last fact has passed: nobody would ever tell the listener to go."""
    task = scene.client.task()
    await scene.client.ask(Submit(task), 2)
    for frame in (Submit(task), Attach(task.id)):
        await scene.client.ask(frame)
    assert scene.node.feed._by_task == {}  # noqa: SLF001 - what is held on to shows nowhere else


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_cancel_is_answered_by_the_result_of_the_task(autojump_clock: MockClock, scene: Scene) -> None:
    """CANCELLED, when the execution has stopped."""
    scene.executor.then(Hang())
    task = scene.client.task()
    await scene.client.ask(Submit(task))
    await scene.executor.wait_until_begun(1)
    (result,) = await scene.client.ask(Cancel(task.id))
    assert isinstance(result, Result)
    assert result.failure is not None
    assert result.failure.code is ErrorCode.CANCELLED
    assert scene.executor.running == 0


async def test_a_cancel_of_what_is_not_the_peers_own_changes_nothing(autojump_clock: MockClock, scene: Scene) -> None:
    """An unknown task, another peer's, and one that has ended: no answer, no harm."""
    gate = trio.Event()
    scene.executor.then((Until(gate), Return("done")))
    async with Client(scene.hub, "eve").connected(scene.node) as eve:
        task = scene.client.task()
        await scene.client.ask(Submit(task))
        for task_id in (task.id, new_task_id()):
            eve.channel.send(Cancel(task_id))
        await wait_all_tasks_blocked()
        assert scene.node.manager.get_task(task.id).status is TaskStatus.EXECUTING
        gate.set()
        await scene.client.heard.wait_for_frames(2)
        scene.client.channel.send(Cancel(task.id))
        await wait_all_tasks_blocked()
        assert scene.node.manager.get_task(task.id).status is TaskStatus.COMPLETE
        assert len(scene.client.heard.frames) == 2
        assert eve.heard.frames == []


async def test_a_lost_connection_leaves_the_tasks_of_the_peer_alone(autojump_clock: MockClock, scene: Scene) -> None:
    """They go on: the peer may ask for them again."""
    scene.executor.then((Delay(5_000), Return("done")))
    task = scene.client.task()
    await scene.client.ask(Submit(task))
    scene.hub.cut(scene.node.peer_id, scene.client.peer_id)
    await trio.sleep(10)
    assert scene.node.manager.get_task(task.id).status is TaskStatus.COMPLETE


async def test_a_frame_that_no_requester_sends_is_dropped(autojump_clock: MockClock, scene: Scene) -> None:
    """A defect of the network part does not end the node."""
    (channel,) = scene.node.network.channels()
    scene.node.gateway.received(channel, Accept(new_task_id()))
    assert len(await scene.client.ask(Submit(scene.client.task()), 2)) == 2


def test_the_advert_names_what_a_peer_may_use() -> None:
    """Each peer is told of its own kinds."""
    seen: dict[str, tuple[str, ...]] = {}

    async def main() -> None:
        async with scene_with(
            executors=[ScriptedExecutor("private", safe=False)], allow={"private": (PeerId("client"),)}
        ) as scene:
            advert = scene.client.channel.advert
            assert advert is not None
            seen["client"] = advert.kinds
            seen["other"] = scene.node.advert_for(PeerId("other")).kinds

    trio.run(main)
    assert seen == {"client": ("echo", "private", "scripted"), "other": ("echo", "scripted")}


async def test_a_task_that_the_store_gives_up_is_told_to_the_peer(autojump_clock: MockClock) -> None:
    """One that was never saved is refused, and one that was accepted has failed; both say why."""
    store = HeldStore()
    taken = PeertaskError("another process has changed the task", code=ErrorCode.CONFLICT, remedy="Use two files")
    async with open_memory_hub() as hub, Scene(hub, store=store).running() as scene:
        store.hold()
        scene.executor.then(Hang())
        scene.client.channel.send(Submit(scene.client.task()))
        await wait_all_tasks_blocked()
        store.refuse(taken)
        scene.client.channel.send(Submit(scene.client.task()))
        await wait_all_tasks_blocked()
        store.commit()
        await wait_all_tasks_blocked()
        store.refuse(taken)
        with trio.fail_after(LIMIT_S):
            rejected, accepted, failed = await scene.client.heard.wait_for_frames(3)
        assert isinstance(rejected, Reject)
        assert isinstance(accepted, Accept)
        assert isinstance(failed, Result)
        assert failed.failure is not None
        for code, message in ((rejected.code, rejected.message), (failed.failure.code, failed.failure.message)):
            assert (code, message) == (ErrorCode.CONFLICT, "another process has changed the task. Use two files")
