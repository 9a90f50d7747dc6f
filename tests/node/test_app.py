"""The node as programs use it: real nodes, over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from node.app import Node, open_node
from node.config import NodeConfig
from node.coordination.hindrances import Wait
from node.gateways.http.client import ControlClient
from node.interfaces import Change, Committed
from node.stores.memory import MemoryStore
from node.testing import Hang, Return, ScriptedExecutor, Until
from protocol import ErrorCode, InvalidTask, PeerId, PeertaskError, TaskFailed, TaskNotFound, TaskStatus, new_task_id

# Bounds every test; a session opens in some 50 ms.
TEST_S = 60.0


@asynccontextmanager
async def nodes(*executors: ScriptedExecutor, **settings: object) -> AsyncIterator[list[Node]]:
    """A node, and one for each executor, to which the first one is connected."""
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(TEST_S))
        first = await stack.enter_async_context(open_node(NodeConfig(**settings)))  # type: ignore[arg-type]
        others = [await stack.enter_async_context(open_node(executors=[executor])) for executor in executors]
        for other in others:
            await first.connect(other.addresses[0])
        yield [first, *others]


async def test_a_program_submits_a_task_to_a_peer() -> None:
    """Connect, submit, result: the first example of every reader."""
    # covers CORE-16, CORE-36
    async with nodes(ScriptedExecutor().on("hello", Return("hello back"))) as (ann, ben):
        result = await ann.submit("hello", to=ben.peer_id, kind="scripted")
        assert result.result == "hello back"
        assert ann.get_task(result.task_id).holder == ben.peer_id
        assert [record.id for record in ann.list_tasks()] == [result.task_id]
        assert await ann.result(result.task_id) == result
        assert (await ann.submit("by address", to=ben.addresses[0], kind="echo")).result == "by address"


async def test_a_node_that_may_choose_finds_someone_who_can() -> None:
    """Itself, or a peer that has the kind."""
    async with nodes(ScriptedExecutor()) as (ann, ben):
        here, there = await ann.submit("here", kind="echo"), await ann.submit("there", kind="scripted")
        assert ann.get_task(here.task_id).holder in {ann.peer_id, ben.peer_id}
        assert ann.get_task(there.task_id).holder == ben.peer_id


async def echoed(prompt: str) -> str:
    """Return what was asked."""
    return prompt


async def test_a_node_has_only_the_kinds_that_its_settings_name() -> None:
    """What is registered besides is left out; a task of it waits for a worker that was named."""
    config = NodeConfig(listen=(), kinds=("echo", "shout"), workers=(PeerId("12D3KooWWorker"),))
    async with open_node(config) as node:
        for kind in ("shout", "whisper"):
            node.task(kind)(echoed)
        assert node.kinds == ("echo", "shout")
        task_id = await node.enqueue("x", kind="whisper")
        (reason,) = (await node.explain(task_id)).waits_for
        assert reason.wait is Wait.WORKER
        with pytest.raises(TaskNotFound):
            await node.explain(new_task_id())


async def test_a_function_is_registered_with_one_decorator() -> None:
    """Peers are told of it at once, and may use it when the operator lists them."""
    async with nodes(ScriptedExecutor()) as (ann, ben):

        @ben.task("shout", safe=True)
        async def shout(prompt: str) -> str:
            return prompt.upper()

        @ann.task("fail")
        def fail(prompt: str) -> str:
            raise ValueError(prompt)

        assert await shout("direct") == "DIRECT"
        assert "shout" in ben.kinds
        assert (await ann.submit("hey", to=ben.peer_id, kind="shout")).result == "HEY"
        with pytest.raises(TaskFailed, match="ValueError: oh no"):
            await ann.submit("oh no", to=ann.peer_id, kind="fail")


async def test_a_map_yields_results_as_they_come() -> None:
    """From a peer, with so many open at a time."""
    # covers CORE-17
    executor = ScriptedExecutor()
    async with nodes(executor) as (ann, ben):
        prompts = [f"prompt {number}" for number in range(50)]
        mapped = ann.map(prompts, to=ben.peer_id, kind="scripted", concurrency=5)
        assert sorted([one.prompt async for one in mapped]) == sorted(prompts)
        assert executor.most_at_once <= 5
        async with aclosing(ann.map(["x"], kind="echo")) as one:
            assert (await anext(one)).record.status is TaskStatus.COMPLETE


async def test_a_graph_is_submitted_by_name_and_its_results_reach_functions() -> None:
    """A function that takes inputs gets them in the order of naming; one that does not is called as ever."""
    # covers COORD-1, COORD-3
    async with nodes(ScriptedExecutor()) as (ann, ben):

        @ben.task("count", safe=True)
        def count(prompt: str) -> str:
            return str(len(prompt))

        @ann.task("add")
        def add(prompt: str, inputs: dict[str, str]) -> str:
            return f"{prompt} {' '.join(inputs.values())}"

        ids = await ann.submit_graph(
            {
                "sum": {"prompt": "sum:", "kind": "add", "depends_on": ["long", "short"]},
                "short": {"prompt": "ab", "kind": "count", "to": ben.peer_id, "parent_id": "sum"},
                "long": {"prompt": "abcd", "kind": "count", "depends_on": ["short"], "to": ben.peer_id, "timeout": 60},
            }
        )
        assert (await ann.result(ids["sum"])).result == "sum: 4 2"
        assert ann.get_task(ids["long"]).task.metadata["title"] == "long"
        assert (await ann.receipt(ids["long"])).executor == ben.peer_id
        with pytest.raises(InvalidTask, match=r"there is no task 'shrt'.*Did you mean 'short'"):
            await ann.submit_graph({"short": {"prompt": "a"}, "sum": {"prompt": "b", "depends_on": ["shrt"]}})
        with pytest.raises(InvalidTask, match=r"cycle: (a → b → a|b → a → b)"):
            await ann.submit_graph(
                {"a": {"prompt": "a", "depends_on": ["b"]}, "b": {"prompt": "b", "depends_on": ["a"]}}
            )
        assert ann.manager.open_tasks == 0


async def test_a_task_can_be_watched_and_cancelled() -> None:
    """Its facts come until the last."""
    executor = ScriptedExecutor().on("hang", Hang())
    async with nodes(executor) as (ann, ben):
        task_id = await ann.enqueue("hang", to=ben.peer_id, kind="scripted")
        await executor.wait_until_begun(1)
        statuses = []
        async with ann.watch(task_id) as changes:
            ann.cancel(task_id)
            async for change in changes:
                assert isinstance(change, Change)
                statuses.append(change.record.status)
        assert (statuses[0], statuses[-1]) == (TaskStatus.PENDING, TaskStatus.CANCELLED)
        with pytest.raises(TaskFailed, match="cancelled"):
            await ann.result(task_id)


async def test_cancelling_a_submit_cancels_its_task() -> None:
    """A timeout around the call leaves nothing running at the peer."""
    executor = ScriptedExecutor().on("hang", Hang())
    async with nodes(executor) as (ann, ben):
        with trio.move_on_after(0.2):
            await ann.submit("hang", to=ben.peer_id, kind="scripted")
        await executor.wait_until_ended(len(executor.seen))
        (record,) = ann.list_tasks()
        with pytest.raises(TaskFailed):
            await ann.result(record.id)


async def test_a_submit_waits_for_room() -> None:
    """A node with room for two open tasks takes ten, one after the other."""
    async with nodes(max_queued=2) as (ann,):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(lambda text: ann.submit(text, kind="echo"), f"prompt {number}")
        assert [record.status for record in ann.list_tasks()] == [TaskStatus.COMPLETE] * 10


async def test_bad_input_is_refused_in_words() -> None:
    """Before anything is sent, naming the field."""
    async with nodes() as (ann,):
        for fields, text in (
            ({"priority": 256}, "priority"),
            ({"kind": "no such/kind"}, "kind"),
            ({"id": "not-a-uuid"}, "id"),
        ):
            with pytest.raises(InvalidTask, match=text):
                await ann.submit("hello", **fields)
        with pytest.raises(PeertaskError) as refused:
            await ann.submit("hello", to="/not/an/address")
        assert refused.value.code is ErrorCode.INVALID_ADDRESS
        with pytest.raises(InvalidTask):
            ann.get_task("not-a-uuid")
        with pytest.raises(TaskNotFound):
            await ann.result(new_task_id())
        with pytest.raises(TaskFailed) as late:
            await ann.submit("too late", kind="nobody-has-this", to=ann.peer_id, timeout=0.05)
        assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
        with pytest.raises(PeertaskError, match="echo, mock") as nobody:
            await ann.submit("never", kind="nobody-has-this")
        assert nobody.value.code is ErrorCode.NO_EXECUTOR


async def test_draining_waits_for_what_runs_and_takes_nothing_new() -> None:
    """Then the node can go; those who ask are told."""
    gate = trio.Event()
    executor = ScriptedExecutor().on("a prompt", Until(gate))
    async with nodes(executor) as (ann, ben):
        task_id = await ann.enqueue("a prompt", to=ben.peer_id, kind="scripted")
        await executor.wait_until_begun(1)
        assert ben.health().status == "ok"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ben.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert ben.health().status == "draining"
            with pytest.raises(PeertaskError) as refused:
                await ben.submit("no", kind="echo")
            assert refused.value.code is ErrorCode.DRAINING
            gate.set()
        assert (await ann.result(task_id)).result == "a prompt"


async def test_a_node_goes_on_with_what_is_in_its_store() -> None:
    """Results of before, and tasks that had not ended."""
    store, executor = MemoryStore(), ScriptedExecutor()
    executor.on("a prompt", Hang())
    with trio.fail_after(TEST_S):
        async with open_node(executors=[executor], store=store) as node:
            done = await node.submit("done", kind="echo", to=node.peer_id)
            task_id = await node.enqueue("a prompt", kind="scripted")
            await executor.wait_until_begun(1)
        async with open_node(executors=[ScriptedExecutor()], store=store) as again:
            assert await again.result(done.task_id) == done
            assert (await again.result(task_id)).result == "a prompt"


async def test_a_second_node_in_a_data_folder_is_refused(tmp_path: Path) -> None:
    """It says so, and the first one goes on."""
    config = NodeConfig(data=tmp_path)
    with trio.fail_after(TEST_S):
        async with open_node(config) as first:
            with pytest.raises(PeertaskError) as refused:
                async with open_node(config):
                    pytest.fail("two nodes run in one folder")
            assert refused.value.code is ErrorCode.INVALID_CONFIG
            assert (await first.submit("hello", kind="echo")).result == "hello"
            assert first.info().peer_id == first.peer_id
            assert "peertask" in first.metrics()
        async with open_node(config) as again:
            assert again.peer_id == first.peer_id


class SlowToOpen(MemoryStore):
    """Opens when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.opening, self.may_open = trio.Event(), trio.Event()

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Wait, and be open."""
        self.opening.set()
        await self.may_open.wait()
        async with super().running(committed):
            yield


async def test_who_asks_while_a_node_starts_is_answered_when_it_runs(tmp_path: Path) -> None:
    """A client of a node that was restarted is not told that there is no such task, nor that the store is not open."""
    store, config = SlowToOpen(), NodeConfig(data=tmp_path)
    store.may_open.set()
    async with open_node(config, store=store) as node:
        earlier = await node.submit("earlier", kind="echo")
    store.opening, store.may_open = trio.Event(), trio.Event()
    answers: list[str] = []

    async def ask() -> None:
        client = ControlClient(tmp_path)
        answers.append((await client.get(earlier.task_id)).status)
        answers.append((await client.submit("later", kind="echo", wait_s=TEST_S)).status)
        nursery.cancel_scope.cancel()

    with trio.fail_after(TEST_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_until_cancelled, config, store)
            await store.opening.wait()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert answers == []
            store.may_open.set()
    assert answers == [TaskStatus.COMPLETE, TaskStatus.COMPLETE]


async def test_a_node_that_cannot_start_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Who asked while it tried is told that no node answers."""
    store = SlowToOpen()
    refused: list[PeertaskError] = []

    async def ask() -> None:
        with pytest.raises(PeertaskError) as caught:
            await ControlClient(tmp_path).info()
        refused.append(caught.value)

    with trio.fail_after(TEST_S):
        async with trio.open_nursery() as nursery, trio.open_nursery() as starting:
            starting.start_soon(serve_until_cancelled, NodeConfig(data=tmp_path), store)
            await store.opening.wait()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            starting.cancel_scope.cancel()
    assert [error.code for error in refused] == [ErrorCode.NODE_UNAVAILABLE]


async def serve_until_cancelled(config: NodeConfig, store: SlowToOpen) -> None:
    """Run a node."""
    async with open_node(config, store=store):
        await trio.sleep_forever()
