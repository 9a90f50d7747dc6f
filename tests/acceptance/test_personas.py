"""`peertask personas` and tasks for personas, with real nodes."""

# covers COORD-2, COORD-28, COORD-51, COORD-53

from __future__ import annotations

from tests.acceptance.processes import Stage


def test_a_persona_is_defined_declared_and_asked(stage: Stage) -> None:
    """From the command line alone: whoever mistypes it is told which there are, and what nobody acts as waits."""
    stage.start_node("node", "--persona", "reviewer")
    where = ("--data", "node")
    assert stage.run("personas", *where, "list").lines[1].split("\t")[:3] == ["reviewer", "reviewer", "yes"]
    added = stage.run("personas", *where, "add", "writer", "--name", "Technical writer", "-", stdin="Writes.")
    assert added.lines[0].startswith("writer is kept in ")
    agents = stage.folder / "agents"
    agents.mkdir()
    (agents / "reviewer.md").write_text("---\nname: Code reviewer\ntools: none\n---\nReads code.", encoding="utf-8")
    (agents / "wrong.toml").write_text("definition = ", encoding="utf-8")
    imported = stage.run("personas", *where, "import", str(agents))
    assert (imported.code, imported.lines[0].split()[0]) == (2, "reviewer")
    assert f"{agents}/wrong.toml:1: it is not TOML" in imported.err
    listed = stage.run("personas", *where, "list", "--json").json()
    assert [(one["id"], one["name"], one["declared"]) for one in listed] == [
        ("reviewer", "Code reviewer", True),
        ("writer", "Technical writer", False),
    ]
    shown = stage.run("personas", *where, "show", "reviewer").lines
    assert (shown[0], shown[-1]) == ("persona    reviewer", "Reads code.")
    assert stage.run("send", *where, "--persona", "reviewer", "--kind", "echo", "look").out == "look\n"
    mistyped = stage.run("send", *where, "--persona", "revewer", "look")
    assert mistyped.code == 2
    assert "The personas that are known: reviewer, writer" in mistyped.err
    waits = stage.run("send", *where, "--persona", "writer", "--detach", "write").out.strip()
    assert any(
        line.startswith("waits for  a worker that does tasks of kind") and "acts as 'writer'" in line
        for line in stage.run("show", *where, waits).lines
    )
    assert stage.run("personas", *where, "remove", "writer", "nobody", "--json").code == 6
    assert stage.run("personas", *where, "list", "--name", "x").code == 2


def test_a_node_without_coordination_has_no_personas(stage: Stage) -> None:
    """It does what it is given."""
    stage.start_node("plain", "--no-coordination")
    assert stage.run("send", "--data", "plain", "--persona", "anybody", "--kind", "echo", "hello").out == "hello\n"
