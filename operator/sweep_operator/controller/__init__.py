"""The program that keeps sweeps climbing on a cluster: watches, work queue, workers, Lease, health.

Owns when a pass is run and what happens when one fails. Knows no rule of a ladder and no field of a Job.
"""
