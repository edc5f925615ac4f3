"""Planning: from a target and a budget to a ladder, and what it and the target will cost, need and reveal.

`devices` prices FLOPs, `prior` says which law is assumed before anything was measured, `ladder` finds the design,
`rehearsal` climbs it on paper, `following` proposes the next rung of a ladder that stands, `needs` answers the
questions around it. Every number that is an assumption carries its source. Trains nothing, reads no files.
"""
