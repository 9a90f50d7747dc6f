"""The work side of a node: agents, what they ask for, what they have, and the door through which all of it comes."""

from node.work.door import WorkDoor

__all__ = ["WorkDoor"]
