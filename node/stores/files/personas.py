"""Personas in files that people write: one for each, in TOML or Markdown, below ``{data}/personas``.

A file is called by the id of its persona. TOML has the keys ``name`` and ``definition``. Of Markdown all is the
definition but the front matter, of which ``name: …`` and ``id: …`` are taken; without a name there the first heading is
the name. So files that describe agents to other programs can be used as they are.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio

from node.personas import FoundPersonas, Persona, PersonaSource, placed
from protocol import ErrorCode, PeertaskError

PERSONAS_FOLDER: Final = "personas"
"""In the data folder."""
# Four bytes for each character of the longest definition: what is larger is no persona.
MAX_FILE_BYTES: Final = 1024 * 1024 + 4096

_SUFFIXES = (".toml", ".md")
_KEYS = ("id", "name", "definition")
_FENCE = "---"
_HEADING = re.compile(r"^# +(\S.*)$", re.MULTILINE)
_TAKEN = re.compile(r"(id|name) *: *(.*)")
_PRIVATE_FOLDER = 0o700


class PersonaFolder(PersonaSource):
    """The personas of a folder, which need not be there.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    async def personas(self) -> FoundPersonas:
        """Read all files; see `PersonaSource.personas`."""
        return await trio.to_thread.run_sync(self._read_all)

    async def save_persona(self, persona: Persona) -> Persona:
        """Write the file of a persona, in Markdown; see `PersonaSource.save_persona`."""
        return await trio.to_thread.run_sync(self._save, persona)

    async def remove_persona(self, persona_id: str) -> bool:
        """Remove the files of a persona; see `PersonaSource.remove_persona`."""
        return await trio.to_thread.run_sync(self._remove, persona_id)

    def _read_all(self) -> FoundPersonas:
        known: dict[str, Persona] = {}
        problems: list[str] = []
        for path in self._paths():
            try:
                persona = read_persona(path)
            except PeertaskError as error:
                problems.append(str(error))
                continue
            first = known.setdefault(persona.id, persona)
            if first is not persona:
                problems.append(f"{path}: the persona {persona.id!r} is defined in {first.place} already. Remove one")
        return FoundPersonas(list(known.values()), problems)

    def _paths(self) -> list[Path]:
        return _files_in(self._folder) if self._folder.exists() else []

    def _save(self, persona: Persona) -> Persona:
        path = self._folder / f"{persona.id}.md"
        draft = path.with_name(f".{path.name}.tmp")
        try:
            self._folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
            draft.write_text(f"{_FENCE}\nname: {persona.name}\n{_FENCE}\n\n{persona.definition}\n", encoding="utf-8")
            draft.rename(path)
            for other in self._paths_of(persona.id):
                if other != path:
                    other.unlink()
        except OSError as error:
            raise _failed(f"{path} cannot be written: {error.strerror}") from error
        return placed(persona, str(path))

    def _remove(self, persona_id: str) -> bool:
        paths = list(self._paths_of(persona_id))
        for path in paths:
            try:
                path.unlink()
            except OSError as error:
                raise _failed(f"{path} cannot be removed: {error.strerror}") from error
        return bool(paths)

    def _paths_of(self, persona_id: str) -> Iterator[Path]:
        """Yield the files that define a persona, also those that are not called by it."""
        for path in self._paths():
            try:
                if read_persona(path).id == persona_id:
                    yield path
            except PeertaskError:
                continue  # whose it is, nobody knows


def persona_files(place: Path) -> list[Path]:
    """Return the files below a folder that may define personas, by name, or the file itself.

    Raises:
        PeertaskError: code STORE_FAILED, when the folder cannot be read.
    """
    return _files_in(place) if place.is_dir() else [place]


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.name[0] != ".")
    except OSError as error:
        raise _failed(f"the folder {folder} cannot be read: {error.strerror}") from error


def read_persona(path: Path) -> Persona:
    """Return the persona that a file defines; blocks.

    Raises:
        PeertaskError: code INVALID_CONFIG, naming the file, the line where there is one, and the reason.
    """
    text = _read_text(path)
    fields, line_of = _from_toml(path, text) if path.suffix == ".toml" else _from_markdown(path, text)
    fields = {"id": path.stem, "name": fields.get("id", path.stem), **fields}
    if not str(fields.get("definition", "")).strip():
        raise _malformed(path, line_of("definition"), "the definition is missing or empty", "Say what the persona does")
    try:
        return Persona.of(**fields, place=str(path))
    except PeertaskError as error:
        reason = error.message.removeprefix("this is no persona: ")
        raise _malformed(path, line_of(reason.removeprefix("field ").split(":")[0]), reason) from None


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise _malformed(path, 1, f"it is larger than any persona ({MAX_FILE_BYTES:,} bytes)")
            content = file.read()
        return content.decode()
    except OSError as error:
        raise _malformed(path, 1, f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _malformed(path, line, f"it is not UTF-8: {error.reason}", "Convert it, with iconv for example") from None


class _Lines:
    """Where the fields of a file stand, as numbers of lines.

    Args:
        text: of the file.
        separator: what follows the name of a field.
    """

    def __init__(self, text: str, separator: str) -> None:
        self._text = text
        self._separator = separator

    def __call__(self, field: str) -> int:
        found = re.search(rf"^{re.escape(field)}\s*{self._separator}", self._text, re.MULTILINE)
        return 1 if found is None else self._text.count("\n", 0, found.start()) + 1


def _from_toml(path: Path, text: str) -> tuple[dict[str, Any], _Lines]:
    line_of = _Lines(text, "=")
    try:
        fields = tomllib.loads(text)
    except ValueError as error:
        line = re.search(r"line (\d+)", str(error))
        raise _malformed(path, int(line[1]) if line else text.count("\n") + 1, f"it is not TOML: {error}") from None
    for key in fields:
        if key not in _KEYS:
            raise _malformed(path, line_of(key), f"there is no key {key!r}", f"The keys are: {', '.join(_KEYS)}")
    return fields, line_of


def _from_markdown(path: Path, text: str) -> tuple[dict[str, Any], _Lines]:
    fields: dict[str, Any] = {}
    body = text
    if text.split("\n", 1)[0].strip() == _FENCE:
        fields, body = _front_matter(path, text.split("\n"))
    heading = _HEADING.search(body)
    if "name" not in fields and heading is not None:
        fields["name"] = heading[1]
    return {**fields, "definition": body}, _Lines(text, ":")


def _front_matter(path: Path, lines: list[str]) -> tuple[dict[str, Any], str]:
    fields: dict[str, Any] = {}
    for number, line in enumerate(lines[1:], 2):
        if line.strip() == _FENCE:
            return fields, "\n".join(lines[number:])
        pair = _TAKEN.fullmatch(line.rstrip())
        if pair is not None:
            fields[pair[1]] = pair[2].strip("\"'")
    raise _malformed(path, 1, "the front matter does not end", f"Put {_FENCE} on a line of its own after it")


def _malformed(path: Path, line: int, reason: str, remedy: str = "Correct it there") -> PeertaskError:
    return PeertaskError(f"{path}:{line}: {reason}", code=ErrorCode.INVALID_CONFIG, remedy=remedy)


def _failed(message: str) -> PeertaskError:
    return PeertaskError(message, code=ErrorCode.STORE_FAILED, remedy="Let the user of the node read and write there")
