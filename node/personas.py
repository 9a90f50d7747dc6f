"""Personas: who may be asked to do tasks. What each one is, where that is kept, and what a node knows of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, NamedTuple, Self

import structlog
import trio
from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from node.coordination.personas import check_known
from protocol import ErrorCode, Name, PeertaskError, describe_invalid

log = structlog.get_logger(__name__)

# A line of a table.
MAX_TITLE_CHARS: Final = 200
# A long system prompt is a tenth of this; more is a document, and every task of the persona would carry it to its
# executor.
MAX_DEFINITION_CHARS: Final = 256 * 1024
# Nobody writes a file and asks for its persona sooner; and of a thousand tasks for one that is unknown, a few look.
RELOAD_AFTER_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """Somebody who may be asked to do tasks.

    Attributes:
        id: as tasks name it.
        name: for people; one line.
        definition: what it is and does, in words: an instruction to a model, or to a person. Empty when nobody has
            written it down.
        place: where the definition is kept: the path of a file.
    """

    id: Name
    name: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TITLE_CHARS, pattern=r"^[^\r\n]*$")
    ]
    definition: Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_DEFINITION_CHARS)] = ""
    place: str = ""

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Check and make a persona.

        Raises:
            PeertaskError: code INVALID_CONFIG; names the field that is wrong, and its limit.
        """
        try:
            return _PERSONA.validate_python(fields)  # type: ignore[return-value]
        except ValidationError as error:
            raise PeertaskError(
                f"this is no persona: {describe_invalid(error)}", code=ErrorCode.INVALID_CONFIG
            ) from None


_PERSONA: TypeAdapter[Persona] = TypeAdapter(Persona)


class FoundPersonas(NamedTuple):
    """What a source holds.

    Attributes:
        personas: those that can be used, each with its place.
        problems: what is wrong with the others: where, why, and what to do, a sentence each.
    """

    personas: list[Persona]
    problems: list[str]


class PersonaSource(ABC):
    """Keeps personas beyond a process."""

    @abstractmethod
    async def personas(self) -> FoundPersonas:
        """Return all personas that have a definition; one that is malformed is a problem, and hides no other.

        Raises:
            PeertaskError: code STORE_FAILED, as the others do.
        """

    @abstractmethod
    async def save_persona(self, persona: Persona) -> Persona:
        """Keep a persona, instead of the one that has its id, and return it with its place."""

    @abstractmethod
    async def remove_persona(self, persona_id: str) -> bool:
        """Forget the definition of a persona; return whether there was one."""


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
            elsewhere: whom connected peers act as.

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


def placed(persona: Persona, place: str) -> Persona:
    """Return a persona as it is kept somewhere."""
    return replace(persona, place=place)
