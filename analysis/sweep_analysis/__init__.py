"""The scaling-law analysis: laws, fits, forecasts and verdicts as pure functions of records."""
