"""Where personas are kept: a contract for all sources, and what only files can get wrong."""

# covers COORD-34, COORD-53

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from node.feed import Feed
from node.manager import TaskManager
from node.personas import MAX_DEFINITION_CHARS, Persona, PersonaSource
from node.stores.files.personas import MAX_FILE_BYTES, PersonaFolder, read_persona
from node.testing import TEST_PEER, TrioClock
from node.testing.sqlite import FakeSqliteDatabase
from protocol import ErrorCode, PeertaskError

REVIEWER = Persona(id="reviewer", name="Code reviewer", definition='Reads code.\n\n  - and says what is wrong: "this"')


@pytest.fixture(params=["files", "sqlite"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> PersonaSource:
    """One of each kind."""
    return PersonaFolder(tmp_path / "personas") if request.param == "files" else FakeSqliteDatabase()


async def test_what_is_saved_is_found_with_its_place_until_it_is_removed(source: PersonaSource) -> None:
    """Saving again replaces; removing twice says that there is nothing left."""
    assert await source.personas() == ([], [])
    saved = await source.save_persona(REVIEWER)
    await source.save_persona(Persona(id="Writer.2", name="# Wörter: viele", definition="Writes"))
    assert saved.place
    writer, reviewer = sorted((await source.personas()).personas, key=lambda persona: persona.id)
    assert (writer.id, writer.name, reviewer) == ("Writer.2", "# Wörter: viele", saved)
    await source.save_persona(Persona(id="reviewer", name="Another", definition="Reads prose."))
    assert {persona.name for persona in (await source.personas()).personas} == {"Another", "# Wörter: viele"}
    assert await source.remove_persona("reviewer")
    assert not await source.remove_persona("reviewer")
    assert [persona.id for persona in (await source.personas()).personas] == ["Writer.2"]


async def test_a_table_has_personas_that_tasks_name_and_nobody_has_defined() -> None:
    """They are no definitions; and removing one leaves the tasks that name it alone."""
    database = FakeSqliteDatabase()
    manager = TaskManager(database, TrioClock(), Feed(), own_id=TEST_PEER)
    async with manager.running():
        manager.create_task("a prompt", persona="reviewer")
        manager.create_task("a prompt")
        assert await database.personas() == ([], [])
        await database.save_persona(REVIEWER)
        assert await database.remove_persona("reviewer")
        assert not await database.remove_persona("*")
    rows = database.connection.execute("SELECT persona_id FROM tasks ORDER BY id").fetchall()
    assert rows == [("reviewer",), ("*",)]


async def test_a_row_that_another_program_wrote_wrong_hides_no_other() -> None:
    """It is a problem, with the reason."""
    database = FakeSqliteDatabase()
    async with manager_of(database):
        await database.save_persona(REVIEWER)
        database.connection.execute("INSERT INTO personas (id, name, definition) VALUES ('two words', 'x', 'y')")
        personas, (problem,) = await database.personas()
    assert [persona.id for persona in personas] == ["reviewer"]
    assert "two words" in problem


@asynccontextmanager
async def manager_of(database: FakeSqliteDatabase) -> AsyncIterator[TaskManager]:
    """Keep the database open."""
    manager = TaskManager(database, TrioClock(), Feed(), own_id=TEST_PEER)
    async with manager.running():
        yield manager


@pytest.mark.parametrize(
    ("name", "text", "persona"),
    [
        ("a.toml", 'name = "Ann"\ndefinition = """\nReads\n"""', ("a", "Ann", "Reads")),
        ("a.toml", 'definition = "Reads"', ("a", "a", "Reads")),
        ("a.toml", 'id = "b"\ndefinition = "Reads"', ("b", "b", "Reads")),
        ("a.md", "# Ann, who reads\n\nReads.", ("a", "Ann, who reads", "# Ann, who reads\n\nReads.")),
        ("a.md", "Reads.", ("a", "a", "Reads.")),
        ("a.md", '---\nname: "Ann"\n---\n# Title\nReads.', ("a", "Ann", "# Title\nReads.")),
        ("a.md", "---\nid: b\ntools: [x, y]\ndescription: |\n  name: no\n---\nReads.", ("b", "b", "Reads.")),
        ("a.md", "---\r\nname: Ann\r\n---\r\nReads.\r\n", ("a", "Ann", "Reads.")),
    ],
)
def test_a_file_defines_a_persona(tmp_path: Path, name: str, text: str, persona: tuple[str, str, str]) -> None:
    """TOML, or Markdown with front matter, a heading, or neither."""
    path = tmp_path / name
    path.write_bytes(text.encode())
    found = read_persona(path)
    assert ((found.id, found.name, found.definition), found.place) == (persona, str(path))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.toml", b'name = "Ann"\ndefinition = Reads', "a.toml:2: it is not TOML"),
        ("a.toml", b'name = "Ann"\ndefinition = """Reads', "a.toml:2: it is not TOML"),
        ("a.toml", b'name = "Ann"\ndefintion = "Reads"', "a.toml:2: there is no key 'defintion'.* definition"),
        ("a.toml", b'name = "Ann"', "a.toml:1: the definition is missing"),
        ("a.toml", b'definition = "x"\nname = 7', "a.toml:2: field name"),
        ("two words.toml", b'definition = "x"', "two words.toml:1: field id"),
        ("a.md", b"\n\n", "a.md:1: the definition is missing"),
        ("a.md", b"---\nname: Ann\nReads.", "a.md:1: the front matter does not end"),
        ("a.md", b"---\nname: Ann\nid: a b\n---\nReads.", "a.md:3: field id"),
        ("a.md", b"fine\nnot \xe9", "a.md:2: it is not UTF-8"),
        ("a.md", b"x" * (MAX_DEFINITION_CHARS + 1), "a.md:1: field definition"),
        ("a.md", b"x" * (MAX_FILE_BYTES + 1), "a.md:1: it is larger than any persona"),
    ],
)
async def test_a_file_that_is_wrong_is_named_with_its_line_and_hides_no_other(
    tmp_path: Path, name: str, text: bytes, reason: str
) -> None:
    """So that whoever wrote it can put it right."""
    (tmp_path / name).write_bytes(text)
    (tmp_path / "good.md").write_text("Reads.", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not a persona", encoding="utf-8")
    (tmp_path / ".hidden.md").write_text("", encoding="utf-8")
    with pytest.raises(PeertaskError, match=reason):
        read_persona(tmp_path / name)
    personas, (problem,) = await PersonaFolder(tmp_path).personas()
    assert [persona.id for persona in personas] == ["good"]
    assert str(tmp_path / name) in problem


async def test_a_persona_that_two_files_define_is_the_one_of_the_first(tmp_path: Path) -> None:
    """And the other one is told of; saving leaves one file."""
    (tmp_path / "a.toml").write_text('id = "reviewer"\ndefinition = "first"', encoding="utf-8")
    (tmp_path / "reviewer.md").write_text("second", encoding="utf-8")
    folder = PersonaFolder(tmp_path)
    personas, (problem,) = await folder.personas()
    assert [persona.definition for persona in personas] == ["first"]
    assert "reviewer.md" in problem
    assert "a.toml already" in problem
    await folder.save_persona(REVIEWER)
    assert [path.name for path in tmp_path.iterdir()] == ["reviewer.md"]


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: folder.personas(),
        lambda folder: folder.save_persona(REVIEWER),
        lambda folder: folder.remove_persona("reviewer"),
    ],
)
async def test_a_folder_that_is_none_is_told_in_words(tmp_path: Path, act: Callable[[PersonaFolder], object]) -> None:
    """Which, why, and what to do."""
    (tmp_path / "personas").write_text("a file", encoding="utf-8")
    with pytest.raises(PeertaskError, match=rf"{tmp_path}/personas.* cannot be .*Let the user") as caught:
        await act(PersonaFolder(tmp_path / "personas"))  # type: ignore[misc]
    assert caught.value.code is ErrorCode.STORE_FAILED
