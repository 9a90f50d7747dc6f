import trio
from contextlib import asynccontextmanager
from node.testing import *
from node.stores.memory import MemoryStore
@asynccontextmanager
async def pair():
    async with open_memory_hub() as hub:
        yield MemoryNetwork(hub,"a"), MemoryNetwork(hub,"b")
async def test_net(autojump_clock):
    await check_network(pair)
async def test_ch():
    await check_channels(pair)
async def test_store():
    await check_store(MemoryStore)
async def test_ex(autojump_clock):
    await check_executor(lambda: ScriptedExecutor().on("e",Hang()).on("f",Raise(OSError("x"))), make_task(), endless_task=make_task("e"), failing_task=make_task("f"))
