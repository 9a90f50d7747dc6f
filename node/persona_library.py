"""What a node knows of personas: whom it acts as, and the definitions of these and of others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog
import trio

from node.coordination.personas import check_known
from node.personas import FoundPersonas, Persona, PersonaSource
from protocol import ErrorCode, PeertaskError

log = structlog.get_logger(__name__)

# Nobody writes a file and asks for its persona sooner; and of a thousand tasks for one that is unknown, a few look.
RELOAD_AFTER_S: Final = 0.1


class PersonaLibrary:
    """What a node knows of personas: those that it acts as, and the definitions of these and of others.

    Several sources form a chain: the definition of an earlier one hides that of a later one, and new ones go to the
    first. They are read by `load`, and looked up in memory.

    Args:
        sources: where definitions are kept.
        declared: whom this node acts as.

    Attributes:
        declared: the same.
        problems: what is wrong with definitions that were not taken.
    """

    def __init__(self, sources: Sequence[PersonaSource] = (), declared: Iterable[str] = ()) -> None:
        self.declared = frozenset(declared)
        self.problems: tuple[str, ...] = ()
        self._sources = sources
        self._known: Mapping[str, Persona] = {}
        self._loaded_at = -math.inf

    @property
    def known(self) -> list[Persona]:
        """The personas that have a definition, by id."""
        return list(self._known.values())

    async def load(self) -> None:
        """Read all sources; a new problem is logged, a source that cannot be read is one, and none stops anything."""
        found = [await _read(source) for source in self._sources]
        self._loaded_at = trio.current_time()
        known = {persona.id: persona for source in reversed(found) for persona in source.personas}
        self._known = {persona_id: known[persona_id] for persona_id in sorted(known)}
        problems = tuple(problem for source in found for problem in source.problems)
        for problem in problems:
            if problem not in self.problems:
                log.warning("a persona is left out", reason=problem)
        self.problems = problems

    def role(self, persona_id: str) -> Persona:
        """Return a persona, with an empty definition when there is none."""
        return self._known.get(persona_id) or Persona(id=persona_id, name=persona_id)

    def get(self, persona_id: str) -> Persona:
        """Return the persona that has a definition under an id.

        Raises:
            PeertaskError: code NOT_FOUND; names those that there are.
        """
        try:
            return self._known[persona_id]
        except KeyError:
            raise PeertaskError(
                f"this node has no definition of the persona {persona_id!r}",
                code=ErrorCode.NOT_FOUND,
                remedy=f"It has: {', '.join(self._known) or 'none'}",
            ) from None

    async def save(self, persona: Persona) -> Persona:
        """Keep a persona in the first source, and return it with its place.

        Raises:
            PeertaskError: code STORE_FAILED, when there is no source, or it cannot be written.
        """
        if not self._sources:
            raise PeertaskError(
                "this node has nowhere to keep personas",
                code=ErrorCode.STORE_FAILED,
                remedy="Give it a data folder with --data",
            )
        saved = await self._sources[0].save_persona(persona)
        await self.load()
        return saved

    async def remove(self, persona_id: str) -> None:
        """Forget the definition of a persona, wherever it is kept; tasks that name it stay.

        Raises:
            PeertaskError: code NOT_FOUND, when there is none.
        """
        removed = [await source.remove_persona(persona_id) for source in self._sources]
        await self.load()
        if not any(removed):
            self.get(persona_id)

    def knows(self, persona_id: str) -> bool:
        """Whether a persona has a definition here, or this node acts as it."""
        return persona_id in self.declared or persona_id in self._known

    async def check(self, wanted: str, elsewhere: Iterable[str]) -> None:
        """Refuse a task for a persona that nobody has heard of, where definitions say which ones there are.

        Sources are looked into before, because somebody may just have written the file.

        Args:
            wanted: what the task names.
            elsewhere: whom connected peers and agents act as.

        Raises:
            InvalidTask: names the personas that are known.
        """
        known = {*self.declared, *elsewhere}
        if wanted in known or self.knows(wanted):
            return
        if trio.current_time() - self._loaded_at >= RELOAD_AFTER_S:
            await self.load()
        if self._known:
            check_known(wanted, known.union(self._known))


async def _read(source: PersonaSource) -> FoundPersonas:
    try:
        return await source.personas()
    except PeertaskError as error:
        return FoundPersonas([], [str(error)])
