ALTER TABLE agents ADD COLUMN kinds TEXT NOT NULL DEFAULT '[]'; -- JSON: the kinds of tasks that it does
