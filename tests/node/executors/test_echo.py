"""The echo executor."""

from node.executors.echo import EchoExecutor
from node.interfaces import Output
from node.testing import FakeExecution, check_executor, make_task


async def test_the_answer_is_the_prompt() -> None:
    """Nothing is added, and nothing is lost."""
    assert await EchoExecutor().execute(FakeExecution("say “é”\n")) == Output("say “é”\n")


async def test_it_keeps_the_contract_of_executors() -> None:
    """The echo executor passes the checker."""
    await check_executor(EchoExecutor, make_task("hello"))
