"""What is sent and answered about personas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints

from node.coordination.personas import declared_by
from node.coordination_service import acts_as
from node.interfaces import PeerInfo
from node.persona_library import PersonaLibrary
from node.personas import MAX_DEFINITION_CHARS, MAX_TITLE_CHARS, Persona
from node.work_service import AgentState
from protocol import PeerId


class PersonaRequest(BaseModel):
    """What a persona is."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE_CHARS)] | None = None
    """What people call it, on one line; its id when null."""
    definition: Annotated[str, StringConstraints(min_length=1, max_length=MAX_DEFINITION_CHARS)]
    """What it is and does, in words."""


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)


class PersonaView(_Response):
    """Somebody who may be asked to do tasks."""

    id: str
    """As tasks name it."""
    name: str
    """What people call it."""
    definition: str
    """What it is and does, in words; empty when nobody has written it down here."""
    place: str
    """The path of the file or database that has the definition; empty when there is none."""
    declared: bool
    """Whether the node acts as it."""
    peers: tuple[PeerId, ...]
    """The connected peers that act as it."""
    agents: tuple[str, ...]
    """The agents of the node that act as it."""

    @classmethod
    def of(
        cls, persona: Persona, library: PersonaLibrary, peers: Iterable[PeerInfo], agents: Iterable[AgentState]
    ) -> Self:
        """Describe a persona."""
        return cls(
            id=persona.id,
            name=persona.name,
            definition=persona.definition,
            place=persona.place,
            declared=persona.id in library.declared,
            peers=tuple(peer.peer_id for peer in peers if persona.id in acts_as(peer)),
            agents=tuple(state.agent.id for state in agents if state.agent.persona == persona.id),
        )


class PersonaList(_Response):
    """The personas that have a definition here, or that the node, a connected peer or an agent acts as, by id."""

    personas: tuple[PersonaView, ...]
    problems: tuple[str, ...]
    """What is wrong with definitions that were left out, a sentence each."""

    @classmethod
    def of(cls, library: PersonaLibrary, peers: Sequence[PeerInfo], agents: Sequence[AgentState]) -> Self:
        """Describe all personas."""
        acting = (*map(acts_as, peers), *(declared_by(state.agent.persona) for state in agents))
        ids = sorted({persona.id for persona in library.known}.union(library.declared, *acting))
        views = (PersonaView.of(library.role(persona_id), library, peers, agents) for persona_id in ids)
        return cls(personas=tuple(views), problems=library.problems)
