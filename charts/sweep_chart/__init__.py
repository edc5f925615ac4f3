"""The sources of what the Helm chart contains: its values, roles, dashboards, and the pages about them.

Owns every generated file under `charts/scalingsweep` and the generated pages of `docs/`. `python -m sweep_chart` (with
`charts` on the path; `make chart`) writes them, `--check` says which differ. Talks to no cluster.
"""
