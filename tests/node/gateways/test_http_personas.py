"""Requests about personas."""

# covers COORD-52, COORD-53

from __future__ import annotations

from pathlib import Path

import pytest

from node.coordination_service import Coordination
from node.gateways.http.client import ControlClient
from node.gateways.http.work_client import WorkClient
from node.interfaces import PeerInfo
from node.persona_library import PersonaLibrary
from node.personas import Persona
from node.stores.files.personas import PersonaFolder
from protocol import ErrorCode, PeerAdvert, PeertaskError
from tests.node.gateways.http_node import PEER_ID, Served, connected, serving


async def test_personas_are_defined_listed_shown_and_removed(tmp_path: Path) -> None:
    """Files that somebody has just written are there too, and those that are wrong are told."""
    async with serving(tmp_path) as served, connected(served) as http:
        coordinate(served, "intern", "reviewer")
        control = ControlClient(tmp_path)
        saved = await control.save_persona("reviewer", " Reads code.\n", "Code reviewer")
        assert (saved.name, saved.definition, saved.declared) == ("Code reviewer", "Reads code.", True)
        (tmp_path / "personas" / "writer.toml").write_text('definition = "Writes."', encoding="utf-8")
        (tmp_path / "personas" / "wrong.toml").write_text("definition =", encoding="utf-8")
        listed = await control.personas()
        assert [(one.id, one.declared, bool(one.definition)) for one in listed.personas] == [
            ("intern", True, False),
            ("reviewer", True, True),
            ("writer", False, True),
        ]
        assert "wrong.toml:1" in listed.problems[0]
        assert (await control.persona("writer")).place.endswith("writer.toml")
        await control.remove_persona("writer")
        with pytest.raises(PeertaskError, match=r"It has: reviewer") as caught:
            await control.remove_persona("writer")
        assert caught.value.code is ErrorCode.NOT_FOUND
        served.node.known[PEER_ID] = PeerInfo(PEER_ID, connected=True, advert=PeerAdvert(personas=("critic",)))
        (critic, *_) = (await control.personas()).personas
        assert (critic.id, critic.peers, critic.declared, critic.place) == ("critic", (PEER_ID,), False, "")
        painter = await WorkClient.register(tmp_path, ("agent",), persona="painter")
        acting = {one.id: one.agents for one in (await control.personas()).personas}
        assert acting == {"critic": (), "intern": (), "painter": (painter.agent_id,), "reviewer": ()}
        assert (await control.submit("x", persona="painter")).persona == "painter"
        assert (await http.put("/v1/personas/two words", json={"definition": "x"})).status_code == 400
        assert (await http.put("/v1/personas/x", json={"name": "x"})).status_code == 400
        assert (await http.get("/v1/personas")).status_code == 200
        assert (await http.delete("/v1/personas/reviewer")).status_code == 204


async def test_a_task_for_a_persona_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """Alone and in a batch; and those for others are taken in."""
    async with serving(tmp_path) as served:
        library = coordinate(served, "intern")
        await library.save(Persona(id="reviewer", name="Reviewer", definition="Reads code."))
        control = ControlClient(tmp_path)
        with pytest.raises(PeertaskError, match=r"heard of 'nobody'.* intern, reviewer"):
            await control.submit("x", persona="nobody")
        became = await control.submit_many(
            [{"prompt": "x", "persona": who} for who in ("nobody", "intern", "reviewer")]
        )
        assert [isinstance(one, PeertaskError) for one in became] == [True, False, False]
        assert {record.task.persona for record in served.manager.list_tasks()} == {"intern", "reviewer"}


async def test_a_node_without_coordination_knows_nothing_of_personas(tmp_path: Path) -> None:
    """It says so, and takes tasks for any."""
    async with serving(tmp_path):
        control = ControlClient(tmp_path)
        with pytest.raises(PeertaskError, match=r"runs without coordination") as caught:
            await control.personas()
        assert caught.value.code is ErrorCode.NOT_FOUND
        assert (await control.submit("x", persona="anybody")).persona == "anybody"


def coordinate(served: Served, *declared: str) -> PersonaLibrary:
    """Let the node coordinate."""
    library = PersonaLibrary([PersonaFolder(served.folder / "personas")], declared)
    served.node.coordination = Coordination(library)
    return library
