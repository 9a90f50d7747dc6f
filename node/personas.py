"""Personas: who may be asked to do tasks. What each one is, and where that is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from protocol import ErrorCode, Name, PeertaskError, describe_invalid

# A line of a table.
MAX_TITLE_CHARS: Final = 200
# A long system prompt is a tenth of this; more is a document, and every task of the persona would carry it to its
# executor.
MAX_DEFINITION_CHARS: Final = 256 * 1024


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


def placed(persona: Persona, place: str) -> Persona:
    """Return a persona as it is kept somewhere."""
    return replace(persona, place=place)
