"""Tasks for personas: who gets them, what the executor is told, and what a node knows of personas."""

# covers COORD-2, COORD-13, COORD-51, COORD-52, COORD-53

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from node.app import Node, open_node
from node.config import NodeConfig
from node.executors.echo import EchoExecutor
from node.interfaces import EnqueueRequest
from node.persona_library import RELOAD_AFTER_S, PersonaLibrary
from node.personas import FoundPersonas, Persona, PersonaSource
from node.stores.files.personas import PersonaFolder
from node.testing import FakeExecution
from protocol import ErrorCode, InvalidTask, PeertaskError, TaskFailed, TaskStatus

# Bounds every test; a session opens in some 50 ms.
TEST_S = 60.0


@asynccontextmanager
async def nodes(*configs: NodeConfig) -> AsyncIterator[list[Node]]:
    """A node for each configuration, the first one connected to the others."""
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(TEST_S))
        found = [await stack.enter_async_context(open_node(config)) for config in configs]
        for other in found[1:]:
            await found[0].connect(other.addresses[0])
        yield found


async def test_a_task_goes_to_the_node_that_acts_as_its_persona(tmp_path: Path) -> None:
    """Whichever node could do its kind; and the function there gets the definition that is kept there."""
    (tmp_path / "personas").mkdir()
    (tmp_path / "personas" / "reviewer.md").write_text("# Code reviewer\nReads code.", encoding="utf-8")
    acting = NodeConfig(data=tmp_path, personas=("reviewer", "intern"))
    async with nodes(NodeConfig(), acting, NodeConfig()) as (ann, ben, cas):
        for node in (ann, ben, cas):

            @node.task("who", slots=4, safe=True)
            async def who(prompt: str, persona: Persona | None) -> str:
                return repr(persona and (persona.name, persona.definition))

        reviewed = await ann.submit("x", kind="who", persona="reviewer")
        assert reviewed.result == "('Code reviewer', '# Code reviewer\\nReads code.')"
        assert ann.get_task(reviewed.task_id).holder == ben.peer_id
        assert (await ann.submit("x", kind="who", persona="intern")).result == "('intern', '')"
        assert (await ann.submit("x", kind="who", to=ben.peer_id)).result == "None"
        with pytest.raises(TaskFailed, match=r"does not act as persona 'intern'") as caught:
            await ann.submit("x", kind="who", persona="intern", to=cas.peer_id)
        assert caught.value.code is ErrorCode.NO_EXECUTOR


async def test_a_task_waits_for_a_worker_that_acts_as_its_persona() -> None:
    """A node without definitions cannot know that nobody ever will."""
    async with nodes(NodeConfig(), NodeConfig(personas=("reviewer",))) as (ann, ben):
        await ann.disconnect(ben.peer_id)
        task_id = await ann.enqueue("hello", kind="echo", persona="reviewer")
        await ann.submit("others overtake it", kind="echo")
        assert ann.get_task(task_id).status is TaskStatus.PENDING
        await ann.connect(ben.addresses[0])
        assert (await ann.result(task_id)).result == "hello"


async def test_a_persona_that_nobody_knows_is_refused_where_some_are_defined(tmp_path: Path) -> None:
    """With the names of those that are: defined here, declared here, or declared by a peer."""
    settings = NodeConfig(data=tmp_path, personas=("intern",))
    async with nodes(settings, NodeConfig(personas=("reviewer",))) as (ann, _ben):
        assert ann.coordination is not None
        await ann.coordination.personas.save(Persona(id="writer", name="Writer", definition="Writes."))
        with pytest.raises(InvalidTask, match=r"heard of 'revewer'.* intern, reviewer, writer"):
            await ann.enqueue("x", persona="revewer")
        (tmp_path / "personas" / "editor.md").write_text("Edits.", encoding="utf-8")
        await trio.sleep(RELOAD_AFTER_S)
        await ann.enqueue("x", persona="editor")
        assert (await ann.submit("x", kind="echo", persona="reviewer")).result == "x"


async def test_without_coordination_a_node_does_what_it_is_given() -> None:
    """Whatever persona a task names; and it says that it acts as none."""
    plain = NodeConfig(coordination=False, personas=("reviewer",))
    async with nodes(NodeConfig(), plain) as (ann, ben):
        assert ben.coordination is None
        assert ben.info().advert.personas == ()
        assert (await ben.submit("x", kind="echo", persona="anybody")).result == "x"
        assert (await ann.submit("x", kind="echo", persona="anybody", to=ben.peer_id)).result == "x"


async def test_a_node_whose_store_has_numbers_takes_tasks_of_planners_in(tmp_path: Path) -> None:
    """The service that handlers get; a node with another store has none."""
    async with nodes(NodeConfig(data=tmp_path, store="sqlite"), NodeConfig()) as (ann, ben):
        assert ann.coordination is not None
        assert ann.coordination.tasks is not None
        request = EnqueueRequest(title="Test Task", description="Test Description", persona_id="implementer")
        assert await ann.coordination.tasks.enqueue_task(request) > 0
        (record,) = ann.list_tasks()
        assert (record.task.metadata, record.task.persona) == ({"title": "Test Task"}, "implementer")
        assert ben.coordination is not None
        assert ben.coordination.tasks is None


async def test_nodes_with_data_folders_of_their_own_share_no_personas(tmp_path: Path) -> None:
    """As with work trees of a repository that have a node each: what one defines is nothing to the other."""
    # covers COORD-54
    trees = [tmp_path / name for name in ("main", "feature")]
    async with nodes(*[NodeConfig(data=tree, store="sqlite", personas=("reviewer",)) for tree in trees]) as (ann, ben):
        assert ann.coordination is not None
        assert ben.coordination is not None
        await ann.coordination.personas.save(persona("reviewer"))
        await ben.coordination.personas.load()
        assert ben.coordination.personas.known == []


class BrokenSource(PersonaSource):
    """A source that cannot be used."""

    async def personas(self) -> FoundPersonas:
        """Fail."""
        raise PeertaskError("the disk is gone", code=ErrorCode.STORE_FAILED)

    async def save_persona(self, persona: Persona) -> Persona:
        """Fail."""
        raise PeertaskError(f"{persona.id} is not saved", code=ErrorCode.STORE_FAILED)

    async def remove_persona(self, persona_id: str) -> bool:  # noqa: ARG002 - the interface has it
        """Know nothing."""
        return False


def persona(persona_id: str, definition: str = "Does things.") -> Persona:
    """A persona."""
    return Persona(id=persona_id, name=persona_id, definition=definition)


async def test_the_first_source_of_a_chain_wins_and_gets_what_is_new(tmp_path: Path) -> None:
    """Removing removes everywhere, so that nothing comes up from below."""
    first, second = PersonaFolder(tmp_path / "first"), PersonaFolder(tmp_path / "second")
    for source, text in ((first, "of the first"), (second, "of the second")):
        await source.save_persona(persona("both", text))
    await second.save_persona(persona("below"))
    library = PersonaLibrary([first, second], ["declared"])
    await library.load()
    assert [(one.id, one.definition) for one in library.known] == [("below", "Does things."), ("both", "of the first")]
    assert (await library.save(persona("below", "anew"))).place == str(tmp_path / "first" / "below.md")
    assert library.get("below").definition == "anew"
    await library.remove("both")
    assert [one.id for one in library.known] == ["below"]
    assert library.role("both") == Persona(id="both", name="both")
    with pytest.raises(PeertaskError, match=r"'both'.* It has: below") as caught:
        await library.remove("both")
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_a_source_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """It is a problem as a malformed file is; what cannot be saved is told to whoever saves."""
    good = PersonaFolder(tmp_path)
    await good.save_persona(persona("reviewer"))
    library = PersonaLibrary([BrokenSource(), good])
    await library.load()
    await library.load()
    assert (library.problems, [one.id for one in library.known]) == (("the disk is gone",), ["reviewer"])
    with pytest.raises(PeertaskError, match=r"not saved"):
        await library.save(persona("writer"))


async def test_a_library_without_sources_says_where_personas_could_be_kept() -> None:
    """And it refuses no persona, because it knows none."""
    library = PersonaLibrary()
    with pytest.raises(PeertaskError, match=r"nowhere to keep personas.* --data"):
        await library.save(persona("reviewer"))
    await library.check("reviewer", [])
    with pytest.raises(PeertaskError, match=r"It has: none"):
        library.get("reviewer")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "two words", "name": "x"}, "field id"),
        ({"id": "x", "name": " "}, "field name"),
        ({"id": "x", "name": "two\nlines"}, "field name"),
        ({"id": "x", "name": "x", "definition": "x" * (256 * 1024 + 1)}, "field definition"),
    ],
)
def test_what_is_no_persona_is_refused_by_the_name_of_its_field(fields: dict[str, str], named: str) -> None:
    """And its limit."""
    with pytest.raises(PeertaskError, match=named):
        Persona.of(**fields)


async def test_an_executor_that_does_not_care_sees_no_persona() -> None:
    """Executions know who does the task; a double says what the test says."""
    execution = FakeExecution("hello", persona=persona("reviewer"))
    assert execution.persona == persona("reviewer")
    assert (await EchoExecutor().execute(FakeExecution("hello"))).text == "hello"
