"""Tasks that depend on each other, and families of tasks, in a whole node: from their submission to their end."""

# covers COORD-1, COORD-3, COORD-18, COORD-19, COORD-20
