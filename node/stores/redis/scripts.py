"""What must happen in the server in one step, as scripts that it runs. Each writes everything or nothing.

A node has one writer, the process that has claimed it last: a script of any other writes nothing, so that a process
that was presumed dead and wakes up cannot overwrite what has happened since. Each connection claims anew, so that a
script that was under way in an older connection of the same process is refused too.

The number of a task's last fact is read off the last item of its list of facts, which begins with it.
"""

from __future__ import annotations

from typing import Final

OK: Final = b"OK"
FENCED: Final = b"FENCED"
"""Another writer has claimed the node, which the reply names; none, when the server has lost what it held."""
EXISTS: Final = b"EXISTS"
CONFLICT: Final = b"CONFLICT"
"""The server holds another number of a task than the one before; the reply names the task and the number."""

_SHARED: Final = """
local function last_seq(facts)
  local last = redis.call('LINDEX', facts, -1)
  return last and tonumber(string.match(last, '^{"seq":(%d+)'))
end

local function place(shared, aside, known)
  if redis.call('EXISTS', aside) == 1 then return aside end
  if known or redis.call('EXISTS', shared) == 0 then return shared end
  return aside
end

local function fenced()
  local writer = redis.call('GET', KEYS[1])
  return writer ~= ARGV[1] and {'FENCED', writer or ''}
end
"""

CLAIM: Final = """
-- KEYS: writer. ARGV: new writer, its process, ttl in seconds, whether to take over from another process.
local writer = redis.call('GET', KEYS[1])
if writer and ARGV[4] == '0' and string.sub(writer, 1, #ARGV[2]) ~= ARGV[2] then return {'FENCED', writer} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return {'OK'}
"""

SAVE: Final = (
    _SHARED
    + """
-- KEYS: writer, index, then for each task: shared, aside, facts, session (or '').
-- ARGV: writer, ttl in seconds, facts kept of a task, whether the same may have been saved before; then for each task:
-- its id, when it was created, the number of the first fact, the value, how many facts, the facts.
local refused = fenced()
if refused then return refused end
local ttl, most, again = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local seqs, k, a = {}, 3, 5
while k <= #KEYS do
  local first, count = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 4])
  local seq = last_seq(KEYS[k + 2])
  if seq and seq >= first and not (again and seq < first + count) then return {'CONFLICT', ARGV[a], tostring(seq)} end
  seqs[k] = seq or false
  k, a = k + 4, a + 5 + count
end
k, a = 3, 5
while k <= #KEYS do
  local shared, aside, facts, session = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local id, created, first, count = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 4])
  local seq = seqs[k]
  redis.call('SET', place(shared, aside, seq), ARGV[a + 3], 'EX', ttl)
  if seq and seq < first - 1 then redis.call('DEL', facts) end
  for n = 0, count - 1 do
    if not seq or first + n > seq then redis.call('RPUSH', facts, ARGV[a + 5 + n]) end
  end
  redis.call('LTRIM', facts, -most, -1)
  redis.call('EXPIRE', facts, ttl)
  redis.call('ZADD', KEYS[2], created, id)
  if session ~= '' then
    redis.call('ZADD', session, created, id)
    redis.call('EXPIRE', session, ttl)
  end
  k, a = k + 4, a + 5 + count
end
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('EXPIRE', KEYS[2], ttl)
return {'OK'}
"""
)

FORGET: Final = (
    _SHARED
    + """
-- KEYS: writer, index, then for each task: shared, aside, facts, and where to set its value aside (or '').
-- ARGV: writer, then the ids.
local refused = fenced()
if refused then return refused end
for n = 2, #ARGV do
  local k = 4 * n - 5
  local known = redis.call('EXISTS', KEYS[k + 2]) == 1
  local where = place(KEYS[k], KEYS[k + 1], known)
  if known or where == KEYS[k + 1] then
    if KEYS[k + 3] ~= '' and redis.call('EXISTS', where) == 1 then
      redis.call('RENAME', where, KEYS[k + 3])
    else
      redis.call('DEL', where)
    end
  end
  redis.call('DEL', KEYS[k + 2])
  redis.call('ZREM', KEYS[2], ARGV[n])
end
return {'OK'}
"""
)

REFRESH: Final = (
    _SHARED
    + """
-- KEYS: writer, index, then for each task: shared, aside, facts. ARGV: writer, ttl in seconds.
local refused = fenced()
if refused then return refused end
for k = 3, #KEYS, 3 do
  if redis.call('EXPIRE', KEYS[k + 2], ARGV[2]) == 1 then
    redis.call('EXPIRE', place(KEYS[k], KEYS[k + 1], true), ARGV[2])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {'OK'}
"""
)

LAST_SEQS: Final = (
    _SHARED
    + """
-- KEYS: the facts of each task. Returns the number of the last one of each, 0 when there are none.
local found = {}
for k = 1, #KEYS do found[k] = last_seq(KEYS[k]) or 0 end
return found
"""
)

READ: Final = (
    _SHARED
    + """
-- KEYS: for each task: shared, aside, facts. ARGV: whether the facts are wanted too.
-- Returns for each task its value, which is false when it is not there, and its facts when they are wanted.
local found = {}
for k = 1, #KEYS, 3 do
  local known = redis.call('EXISTS', KEYS[k + 2]) == 1
  found[#found + 1] = known and redis.call('GET', place(KEYS[k], KEYS[k + 1], true))
  if ARGV[1] == '1' then found[#found + 1] = redis.call('LRANGE', KEYS[k + 2], 0, -1) end
end
return found
"""
)

_KEPT_BY_A_NODE: Final = """
local function kept_by_a_node(value)
  local read, context = pcall(cjson.decode, value)
  return read and type(context) == 'table' and type(context.metadata) == 'table' and context.metadata.peertask
end
"""

UPDATE: Final = (
    _KEPT_BY_A_NODE
    + """
-- KEYS: task, session. ARGV: value, ttl in seconds, id, whether only when it is not there.
-- Returns the value that is there, when it was not written: because there is one already, or because a node keeps it.
local kept = redis.call('GET', KEYS[1])
if kept and ARGV[4] == '1' then return {'EXISTS', kept} end
if kept and kept_by_a_node(kept) then return {'CONFLICT', kept} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'NX', now[1] * 1000 + math.floor(now[2] / 1000), ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {'OK'}
"""
)

DELETE: Final = (
    _KEPT_BY_A_NODE
    + """
-- KEYS: task.
local kept = redis.call('GET', KEYS[1])
if kept and kept_by_a_node(kept) then return {'CONFLICT', kept} end
return {'OK', redis.call('DEL', KEYS[1])}
"""
)
