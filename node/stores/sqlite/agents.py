"""Agents as rows of `agents`.

The times stand there as text, as SQLite's own functions write and read them, to the millisecond.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from node.stores.sqlite.columns import ANYONE, Row
from node.stores.sqlite.from_rows import milliseconds
from node.stores.sqlite.to_rows import exact_text
from node.work_service import Agent
from protocol import ErrorCode, PeertaskError

_READ: Final = "SELECT id, persona_id, registered_at, last_heartbeat, kinds FROM agents WHERE status = 'active'"
_ADD_PERSONA: Final = "INSERT OR IGNORE INTO personas (id, name, definition) VALUES (?, ?, '')"
_SAVE: Final = """
INSERT INTO agents (id, persona_id, registered_at, last_heartbeat, kinds) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET persona_id = excluded.persona_id, registered_at = excluded.registered_at,
    last_heartbeat = excluded.last_heartbeat, kinds = excluded.kinds, status = 'active'
"""
_REMOVE: Final = "DELETE FROM agents WHERE id = ?"


def read_agents(connection: sqlite3.Connection) -> list[Agent]:
    """Return every agent, in the order of their registration.

    Raises:
        PeertaskError: code STORE_FAILED; names the agent whose row holds what no agent has.
    """
    return sorted(map(_agent, connection.execute(_READ)), key=lambda agent: agent.registered_at)


def save_agent(connection: sqlite3.Connection, agent: Agent) -> None:
    """Write the row of an agent, and one for a persona that nobody has heard of."""
    if agent.persona is not None:
        connection.execute(_ADD_PERSONA, (agent.persona, agent.persona))
    times = (exact_text(agent.registered_at), exact_text(agent.heard_at))
    connection.execute(_SAVE, (agent.id, agent.persona or ANYONE, *times, json.dumps(agent.kinds)))


def remove_agent(connection: sqlite3.Connection, agent_id: str) -> None:
    """Drop the row of an agent, if it is there."""
    connection.execute(_REMOVE, (agent_id,))


def _agent(row: Row) -> Agent:
    agent_id, persona, registered_at, last_heartbeat, kinds = row
    try:
        return Agent(
            id=agent_id,
            kinds=tuple(json.loads(kinds)),
            persona=None if persona == ANYONE else persona,
            registered_at=milliseconds(registered_at),
            heard_at=milliseconds(last_heartbeat),
        )
    except (ValueError, TypeError) as error:
        raise PeertaskError(
            f"agent {agent_id} cannot be read: {error}",
            code=ErrorCode.STORE_FAILED,
            remedy="Take it out with DELETE FROM agents WHERE id = …",
        ) from error
