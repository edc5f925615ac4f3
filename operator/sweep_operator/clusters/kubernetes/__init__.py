"""The adapter for Kubernetes: each attempt at a run is a batch/v1 Job."""
