"""The trainer: turns a run order into records."""
