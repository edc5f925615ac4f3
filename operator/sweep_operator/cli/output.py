"""`-o table|json|yaml`: one option, the same on every command that shows something.

Owns the option and the writing of the two stable forms. The table is each command's own.
"""

import argparse
import json
import sys
from typing import Any


def add_output(parser: argparse.ArgumentParser) -> None:
    """The option; `table` is for people, the others are stable."""
    parser.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="default: table")


def write(document: dict[str, Any], form: str) -> None:
    """The document on standard output as JSON or YAML."""
    if form == "json":
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.dump(document, sys.stdout)
