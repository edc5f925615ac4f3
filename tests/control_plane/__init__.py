"""A real Kubernetes control plane for tests: its programs, built from pinned Go modules, and their life in one session.

Owns which versions are tested against, where the programs lie (that of the S3 server is among them), and how the plane
is started. Knows nothing of sweeps.
"""

from control_plane.build import UnavailableError, program
from control_plane.plane import ControlPlane, NotReadyError
from control_plane.programs import free_port

__all__ = ["ControlPlane", "NotReadyError", "UnavailableError", "free_port", "program"]
