"""`python -m control_plane`: build what is missing, once, each program with its expected time."""

import sys

from control_plane.build import EVERYDAY, UnavailableError, missing, program


def main() -> int:
    waiting = missing(EVERYDAY)
    if waiting:
        minutes = sum(p.minutes for p in waiting)
        print(f"control plane: {len(waiting)} programs to build, once, about {minutes:.0f} min", file=sys.stderr)
    try:
        for wanted in waiting:
            program(wanted.name)
    except UnavailableError as reason:
        print(f"control plane: {reason}; tests that need it will be skipped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
