-- Times: *_at is UTC text for people and other programs, *_ms is milliseconds since the epoch and loses nothing.

-- Who may be asked to do tasks; one that a task names is added with an empty definition.
CREATE TABLE personas (
    id TEXT PRIMARY KEY NOT NULL,         -- as tasks name it; * for those that name none
    name TEXT NOT NULL,                   -- for people
    definition TEXT NOT NULL,             -- what it does, in words
    created_at TEXT NOT NULL DEFAULT (datetime('now'))
);

INSERT INTO personas (id, name, definition) VALUES ('*', 'anyone', 'Takes tasks that name no persona.');

-- What is asked; a row never changes.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- of this file only
    uuid TEXT NOT NULL UNIQUE,            -- the id of the task everywhere else
    title TEXT NOT NULL,                  -- "title" of the metadata, else the beginning of the prompt
    description TEXT NOT NULL,            -- the prompt
    persona_id TEXT NOT NULL REFERENCES personas (id), -- who should do it
    created_by TEXT,                      -- the peer that asked
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    created_ms INTEGER NOT NULL,          -- when this node first heard of the task
    kind TEXT NOT NULL,                   -- which executor carries it out
    project TEXT NOT NULL,                -- groups tasks for people
    timestamp_ms INTEGER NOT NULL,        -- when the task was made
    target TEXT,                          -- the peer that was asked to do it
    deadline_ms INTEGER,                  -- when the requester stops caring; NULL for never
    extra TEXT                            -- JSON: all other fields of the task that have not their defaults
);

CREATE INDEX tasks_by_age ON tasks (created_ms, id);

-- What has come of it; one row for each task.
CREATE TABLE task_status (
    task_id INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    status TEXT NOT NULL CHECK (status IN ('pending', 'claimed', 'in_progress', 'completed', 'failed')),
    assigned_agent_id TEXT,               -- the peer that executes it, or executed it last
    claimed_at TEXT,                      -- when it was last claimed
    lease_expires_at TEXT,                -- with milliseconds; NULL without a claim
    seq INTEGER NOT NULL,                 -- the number of its last fact; a write names the one it follows
    format INTEGER NOT NULL DEFAULT 1,    -- of this row and the one in tasks
    attempt INTEGER NOT NULL,             -- how often it was claimed
    updated_ms INTEGER NOT NULL,          -- when the last fact happened
    finished_ms INTEGER,                  -- when it ended; NULL while it is open
    rest TEXT                             -- JSON: all other fields of the record that have not their defaults
);

-- Only the last write of a task sets finished_ms, so no other one touches these.
CREATE INDEX task_status_open ON task_status (task_id) WHERE finished_ms IS NULL;
CREATE INDEX task_status_finished ON task_status (finished_ms, task_id) WHERE finished_ms IS NOT NULL;

-- How it ended.
CREATE TABLE task_results (
    task_id INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    result TEXT,                          -- NULL when it failed or was cancelled
    duration_ms INTEGER,                  -- NULL when it failed or was cancelled
    artifacts TEXT,                       -- JSON, when the result has some
    failure TEXT                          -- JSON: code, message, retryable, maybe_ran
);

-- Which of the tasks that are kept must be complete before which.
CREATE TABLE task_dependencies (
    task_id INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    depends_on INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    PRIMARY KEY (task_id, depends_on)
) WITHOUT ROWID;

CREATE INDEX task_dependencies_of ON task_dependencies (depends_on);

-- A task may name one that this node has not heard of; it moves to task_dependencies when that comes.
CREATE TABLE awaited_dependencies (
    uuid TEXT NOT NULL,                   -- of the task that has not come
    task_id INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE, -- of the one that waits for it
    PRIMARY KEY (uuid, task_id)
) WITHOUT ROWID;

CREATE INDEX awaited_dependencies_of ON awaited_dependencies (task_id);

CREATE TRIGGER dependency_arrived AFTER INSERT ON tasks
WHEN EXISTS (SELECT 1 FROM awaited_dependencies WHERE uuid = NEW.uuid)
BEGIN
    INSERT OR IGNORE INTO task_dependencies (task_id, depends_on)
    SELECT task_id, NEW.id FROM awaited_dependencies WHERE uuid = NEW.uuid;
    DELETE FROM awaited_dependencies WHERE uuid = NEW.uuid;
END;

-- The workers that have registered.
CREATE TABLE agents (
    id TEXT PRIMARY KEY NOT NULL,
    persona_id TEXT NOT NULL REFERENCES personas (id), -- whose tasks it takes
    registered_at TEXT NOT NULL DEFAULT (datetime('now')),
    last_heartbeat TEXT NOT NULL DEFAULT (datetime('now')),
    status TEXT NOT NULL DEFAULT 'active'
);

-- The facts, numbered for each task: its audit log.
CREATE TABLE events (
    task_id INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    fact TEXT NOT NULL,                   -- Submitted, Claimed, Started…
    at_ms INTEGER NOT NULL,
    attempt INTEGER NOT NULL,             -- 0 when it belongs to none
    body TEXT,                            -- JSON: the fields that stand neither here nor in the rows of the task
    PRIMARY KEY (task_id, seq)
) WITHOUT ROWID;
