#!/usr/bin/env bash
# Makes .venv with exactly the pinned packages. Called by `make setup`; says what is missing before anything starts.
set -euo pipefail
python=$1
if ! command -v "$python" >/dev/null; then
  echo "setup: '$python' was not found; install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2
  exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $("$python" --version) is too old; Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2
  exit 2
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "setup: this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2
  exit 2
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
echo "setup: installing the pinned packages into .venv (about 6 GB with PyTorch; once)"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -r requirements/dev.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
touch .venv/.ready
