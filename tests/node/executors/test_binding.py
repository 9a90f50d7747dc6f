"""What a function is called with, decided from its signature."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import protocol as p
from node.executors.binding import Binding
from node.interfaces import Execution
from node.personas import Persona
from node.testing import FakeExecution
from protocol import ErrorCode, InvalidTask, PeertaskError, Task

if TYPE_CHECKING:
    from decimal import Decimal  # not there at run time, as in many modules


def _nothing() -> tuple[Any, ...]:
    return ()


def _text_only(text: str) -> tuple[Any, ...]:
    return (text,)


def _prompt_later(width: int, prompt: str) -> tuple[Any, ...]:
    return (width, prompt)


def _keyword_prompt(*, prompt: str, width: int = 80) -> tuple[Any, ...]:
    return (prompt, width)


def _positional_prompt(text: str, /, width: int = 80) -> tuple[Any, ...]:
    return (text, width)


def _annotated_task(job: Task, width: int = 80) -> tuple[Any, ...]:
    return (job.id, width)


def _task_by_module(job: p.Task) -> tuple[Any, ...]:
    return (job.id,)


def _unevaluated(job: Task, factor: Decimal | None = None) -> tuple[Any, ...]:
    return (job.id, factor)


def _named_task(prompt, task) -> tuple[Any, ...]:  # type: ignore[no-untyped-def]
    return (prompt, task.id)


def _task_is_text(task: str) -> tuple[Any, ...]:
    return (task,)


def _with_execution(prompt: str, execution: Execution) -> tuple[Any, ...]:
    return (prompt, execution.attempt)


def _with_persona(prompt: str, who: Persona | None, width: int = 80) -> tuple[Any, ...]:
    return (prompt, who and who.id, width)


def _named_persona(prompt, persona) -> tuple[Any, ...]:  # type: ignore[no-untyped-def]
    return (prompt, persona and persona.id)


def _persona_is_text(prompt: str, persona: str) -> tuple[Any, ...]:
    return (prompt, persona)


def _all_params(prompt: str, params: dict[str, Any]) -> tuple[Any, ...]:
    return (prompt, params)


def _rest_of_params(prompt: str, width: int = 80, **options: Any) -> tuple[Any, ...]:
    return (prompt, width, options)


def _hands_on(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return (*args, kwargs)


def _not_the_prompt(*, width: int = 80) -> tuple[Any, ...]:
    return (width,)


@functools.wraps(_prompt_later)
def _wrapped(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return _prompt_later(*args, **kwargs)


class _Callee:
    def __call__(self, prompt: str, width: int = 80) -> tuple[Any, ...]:
        return (prompt, width)

    def method(self, prompt: str) -> tuple[Any, ...]:
        return (prompt,)


EXECUTION = FakeExecution("hello", attempt=2)
REVIEWER = Persona(id="reviewer", name="Reviewer")
ID = EXECUTION.task.id


@pytest.mark.parametrize(
    ("function", "params", "expected"),
    [
        (_nothing, {}, ()),
        (_text_only, {}, ("hello",)),
        (_prompt_later, {"width": 3}, (3, "hello")),
        (_keyword_prompt, {}, ("hello", 80)),
        (_keyword_prompt, {"width": 3}, ("hello", 3)),
        (_positional_prompt, {"width": 3}, ("hello", 3)),
        (_annotated_task, {}, (ID, 80)),
        (_annotated_task, {"width": 3, "other": 1}, (ID, 3)),
        (_task_by_module, {}, (ID,)),
        (_unevaluated, {}, (ID, None)),
        (_named_task, {}, ("hello", ID)),
        (_task_is_text, {}, ("hello",)),
        (_with_execution, {"other": 1}, ("hello", 2)),
        (_with_persona, {"width": 3}, ("hello", "reviewer", 3)),
        (_named_persona, {}, ("hello", "reviewer")),
        (_persona_is_text, {"persona": "a text"}, ("hello", "a text")),
        (_all_params, {"width": 3}, ("hello", {"width": 3})),
        (_rest_of_params, {"width": 3, "colour": "red"}, ("hello", 3, {"colour": "red"})),
        (_hands_on, {"width": 3}, ("hello", {"width": 3})),
        (_not_the_prompt, {"width": 3}, (3,)),
        (_wrapped, {"width": 3}, (3, "hello")),
        (functools.partial(_prompt_later, 5), {}, (5, "hello")),
        (_Callee(), {"width": 3}, ("hello", 3)),
        (_Callee().method, {}, ("hello",)),
    ],
)
def test_a_function_gets_what_its_parameters_name(
    function: Callable[..., object], params: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """The prompt, the task, the execution and the params go where names, annotations and order say."""
    task = p.Task.from_dict({**EXECUTION.task.to_dict(), "params": params})
    arguments = Binding(function).bind(FakeExecution(task, attempt=2, persona=REVIEWER))
    assert function(*arguments.args, **arguments.kwargs) == expected


@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        (_prompt_later, {}, "_prompt_later needs width"),
        (_text_only, {"width": 3, "inputs": {}}, "_text_only does not take width.*takes: none"),
        (_keyword_prompt, {"widht": 3}, "does not take widht.*takes: width"),
        (_rest_of_params, {"prompt": "another"}, "does not take prompt"),
        (_nothing, {"b": 1, "a": 2}, "does not take a, b"),
    ],
)
def test_params_that_do_not_fit_are_refused(
    function: Callable[..., object], params: dict[str, Any], message: str
) -> None:
    """A task whose params a function cannot take is invalid, and the requester is told which and why."""
    with pytest.raises(InvalidTask, match=message):
        Binding(function).bind(FakeExecution(params=params))


def _nameless(prompt: str, width: int, /) -> str:
    return prompt * width


class _Unreadable:
    __signature__ = 5

    def __call__(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("function", "message"), [(_nameless, "width cannot be given by name"), (_Unreadable(), "signature cannot be read")]
)
def test_a_function_that_cannot_be_called_is_refused_at_registration(
    function: Callable[..., object], message: str
) -> None:
    """What no task could ever call is an error of the configuration, not of each task."""
    with pytest.raises(PeertaskError, match=message) as refused:
        Binding(function)
    assert refused.value.code is ErrorCode.INVALID_CONFIG
    assert refused.value.remedy


def test_a_function_cannot_change_the_params_of_its_task() -> None:
    """A task is immutable: the dict that a function gets is its own."""
    execution = FakeExecution(params={"width": 3})
    Binding(_all_params).bind(execution).kwargs["params"].clear()
    assert execution.task.params == {"width": 3}
