"""The operator: schedules a ladder of runs, forecasts before each rung, judges after it."""
