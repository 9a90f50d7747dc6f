"""Decisions about tasks, as pure functions of data; nothing here waits, sends or stores."""
