"""Hypothesis without deadlines: the machines that run this suite are shared, and their pauses are not defects."""

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
