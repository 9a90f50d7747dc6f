"""What a Python function is called with: decided once, when it is registered, from its signature.

A function names what it wants:

- a parameter annotated `Task`, or named ``task`` and not annotated, gets the task; `Execution` and ``execution``
  likewise; `Persona` and ``persona`` get who does the task, None when it names nobody; one named ``params`` gets all of
  the task's params as a dict;
- of the others, the one named ``prompt``, or else the very first parameter, gets the prompt;
- every further one gets the value of the task's params under its name, and ``**kwargs`` the rest of them. So one named
  ``inputs`` gets the results of the tasks that this one depends on; a function need not take them.

So ``def f(text)``, ``def f(prompt, width=80)``, ``def f(task: Task)`` and ``def f(prompt, *, language, execution:
Execution)`` all mean what they seem to. Values come as JSON has them; they are not converted to what is annotated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from inspect import Parameter
from typing import Any, NamedTuple

from node.coordination.dependencies import INPUTS
from node.interfaces import Execution
from node.personas import Persona
from protocol import ErrorCode, InvalidTask, JsonObject, PeertaskError, Task


class Source(Enum):
    """What the value of a parameter is, other than one of the task's params."""

    PROMPT = "prompt"
    TASK = "task"
    EXECUTION = "execution"
    PERSONA = "persona"
    PARAMS = "params"


_VALUES: dict[Source, Callable[[Execution], Any]] = {
    Source.PROMPT: lambda execution: execution.task.prompt,
    Source.TASK: lambda execution: execution.task,
    Source.EXECUTION: lambda execution: execution,
    Source.PERSONA: lambda execution: execution.persona,
    Source.PARAMS: lambda execution: dict(execution.task.params),
}
_ANNOTATED = {Task: Source.TASK, Execution: Source.EXECUTION, Persona: Source.PERSONA}
_NAMED = {source.value: source for source in (Source.TASK, Source.EXECUTION, Source.PERSONA)}
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Arguments(NamedTuple):
    """What to call a function with: ``function(*args, **kwargs)``."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Binding:
    """The parameters of one function, and where their values come from.

    Args:
        function: what will be called.

    Raises:
        PeertaskError: code INVALID_CONFIG, when a task does not have what the function must be called with.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function_name = function_name(function)
        parameters = _parameters(function)
        self._sources = _sources(parameters)
        others = [parameter for parameter in parameters.values() if parameter.name not in self._sources]
        self._refuse_nameless(others)
        by_name = [parameter for parameter in others if parameter.kind in _BY_NAME]
        self._takes_rest = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in others)
        self._params = frozenset(parameter.name for parameter in by_name)
        self._required = frozenset(parameter.name for parameter in by_name if parameter.default is Parameter.empty)
        self._values = [(name, _VALUES[source]) for name, source in self._sources.items()]
        self._by_position = [name for name in self._sources if parameters[name].kind in _BY_POSITION]

    def takes(self, source: Source) -> bool:
        """Whether a parameter gets its value from there."""
        return source in self._sources.values()

    def bind(self, execution: Execution) -> Arguments:
        """Return what to call the function with for one attempt at a task.

        Raises:
            InvalidTask: the task's params lack one that the function needs, or have one that it does not take.
        """
        values = {name: value_of(execution) for name, value_of in self._values}
        params = execution.task.params
        if params or self._required:
            self._check(params)
            values |= {name: params[name] for name in params if self._takes_rest or name in self._params}
        return Arguments(tuple(values.pop(name) for name in self._by_position), values)

    def _check(self, params: JsonObject) -> None:
        missing = self._required - params.keys()
        if missing:
            raise InvalidTask(
                f"field params: {self._function_name} needs {_listed(missing)}, which the task does not have"
            )
        surplus = self._surplus(params)
        if surplus:
            takes = _listed(self._params) if self._params else "none"
            raise InvalidTask(
                f"field params: {self._function_name} does not take {_listed(surplus)}",
                remedy=f"The params it takes: {takes}",
            )

    def _surplus(self, params: JsonObject) -> frozenset[str]:
        if self._takes_rest:
            return frozenset(params.keys() & self._sources.keys())
        if any(self.takes(source) for source in (Source.TASK, Source.EXECUTION, Source.PARAMS)):
            return frozenset()
        return frozenset(params.keys() - self._params - {INPUTS})

    def _refuse_nameless(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.kind is Parameter.POSITIONAL_ONLY:
                raise not_callable(
                    self._function_name,
                    f"its parameter {parameter.name} cannot be given by name, as the params of a task are",
                    "Move the / in its signature before that parameter",
                )


def function_name(function: Callable[..., object]) -> str:
    """Return how a function is named in messages."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def not_callable(name: str, why: str, remedy: str) -> PeertaskError:
    """Return the error that refuses to register a function."""
    return PeertaskError(f"{name} cannot carry tasks out: {why}", code=ErrorCode.INVALID_CONFIG, remedy=remedy)


def _parameters(function: Callable[..., object]) -> Mapping[str, Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (NameError, AttributeError, SyntaxError, TypeError, ValueError):
        # An annotation that means something to type checkers only; its text will do.
        return _unevaluated_parameters(function)


def _unevaluated_parameters(function: Callable[..., object]) -> Mapping[str, Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise not_callable(
            function_name(function), f"its signature cannot be read ({error})", "Wrap it in a def that takes the prompt"
        ) from error


def _sources(parameters: Mapping[str, Parameter]) -> dict[str, Source]:
    sources = {name: source for name, parameter in parameters.items() if (source := _special(parameter)) is not None}
    name = _prompt_name(parameters)
    if name is not None:
        sources.setdefault(name, Source.PROMPT)
    return {name: sources[name] for name in parameters if name in sources}


def _prompt_name(parameters: Mapping[str, Parameter]) -> str | None:
    named = parameters.get(Source.PROMPT.value)
    if named is not None and named.kind not in _VARIADIC:
        return named.name
    # A wrapper that takes *args hands on what it gets.
    first = next(iter(parameters.values()), None)
    if first is None or first.kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD):
        return None
    return first.name


def _special(parameter: Parameter) -> Source | None:
    if parameter.kind in _VARIADIC:
        return None
    if parameter.name == Source.PARAMS.value:
        return Source.PARAMS
    if parameter.annotation is Parameter.empty:
        return _NAMED.get(parameter.name)
    return next((source for cls, source in _ANNOTATED.items() if _means(parameter.annotation, cls)), None)


def _means(annotation: object, cls: type) -> bool:
    """Whether an annotation is a class, or that or None; or names it in text that could not be evaluated."""
    if isinstance(annotation, str):
        return annotation.removesuffix(" | None").rpartition(".")[2] == cls.__name__
    return annotation in (cls, cls | None)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
