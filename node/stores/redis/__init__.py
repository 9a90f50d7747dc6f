"""Records in a Redis server that several nodes and other programs share. Needs the extra ``redis``.

General layout: `settings` is what an operator may choose; `keys` and `scripts` are what stands in the server;
`task_context` is the value of a key and its way to a record and back; `connection` is the only place that knows the
client library; `line` is what waits to be saved; `store` is the `Store` of a node; `sessions` are the conversations
that all nodes share.
"""

from node.stores.redis.sessions import RedisSessions, completed, open_sessions
from node.stores.redis.settings import RedisAddress, RedisSettings
from node.stores.redis.store import RedisStore
from node.stores.redis.task_context import (
    STATE_OF,
    ContextStatus,
    Message,
    Part,
    State,
    TaskContext,
    context_of,
    record_of,
    status_of,
)

__all__ = [
    "STATE_OF",
    "ContextStatus",
    "Message",
    "Part",
    "RedisAddress",
    "RedisSessions",
    "RedisSettings",
    "RedisStore",
    "State",
    "TaskContext",
    "completed",
    "context_of",
    "open_sessions",
    "record_of",
    "status_of",
]
