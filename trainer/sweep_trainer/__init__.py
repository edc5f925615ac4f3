"""The trainer: turns a run order into records.

Owns a run from its order to its records; schedules nothing and judges nothing. Importing the package imports neither
torch nor numpy: the commands of `__main__` load what they need.
"""

VERSION = "sweep_trainer/0.1.0 decoder-1"
"""Stands in every record; its second part changes whenever the same order would give another loss."""
