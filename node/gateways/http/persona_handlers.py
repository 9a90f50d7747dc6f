"""Requests about personas."""

from __future__ import annotations

from node.gateways.http.errors import RequestRefused
from node.gateways.http.gateway import Call, Gateway, Reply
from node.gateways.http.persona_models import PersonaList, PersonaView
from node.personas import Persona
from protocol import PeertaskError

_NO_CONTENT = 204


async def list_personas(gateway: Gateway, _call: Call) -> Reply:
    """Return all personas as they are kept now."""
    library = gateway.coordination.personas
    await library.load()
    return Reply(PersonaList.of(library, gateway.node.peers(), gateway.work.active_agents()))


async def get_persona(gateway: Gateway, call: Call) -> Reply:
    """Return one persona as it is kept now."""
    library = gateway.coordination.personas
    await library.load()
    return Reply(
        PersonaView.of(library.get(call.path["id"]), library, gateway.node.peers(), gateway.work.active_agents())
    )


async def put_persona(gateway: Gateway, call: Call) -> Reply:
    """Keep a persona."""
    library = gateway.coordination.personas
    persona_id = call.path["id"]
    try:
        persona = Persona.of(id=persona_id, name=call.body.name or persona_id, definition=call.body.definition)
    except PeertaskError as error:
        raise RequestRefused(error.message, code=error.code) from None
    return Reply(
        PersonaView.of(await library.save(persona), library, gateway.node.peers(), gateway.work.active_agents())
    )


async def remove_persona(gateway: Gateway, call: Call) -> Reply:
    """Forget the definition of a persona."""
    await gateway.coordination.personas.remove(call.path["id"])
    return Reply(None, _NO_CONTENT)
