"""`scalingsweep render`: the Jobs that a sweep would become, offline, as YAML documents for `kubectl` or for reading.

Owns nothing but the call: acceptance makes the runs, `clusters.kubernetes.jobs` the documents.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep_operator.acceptance import Refused, accept
from sweep_operator.api import TARGET, RungStatus, ScalingSweep
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.ladder import scaling_run
from sweep_operator.manifest import ManifestError, read_manifest, read_policy

NO_UID = "00000000-0000-0000-0000-000000000000"
"""What an object is given only when it is created; names of children end in digits that depend on it."""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="SWEEP.yaml", type=Path, help="the manifest")
    parser.add_argument("--rung", metavar="NAME", help=f"of this rung only, or of `{TARGET}` (default: all rungs)")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the platform's policy (YAML)")
    parser.add_argument("--trainer-image", metavar="IMAGE", help="as the operator is given it")
    parser.add_argument("--reporter-image", metavar="IMAGE", help="as the operator is given it")
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml", help="default: yaml")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Print them."""
    from sweep_operator.clusters.kubernetes.jobs import Images

    try:
        policy = read_policy(options.policy)
        sweep = read_manifest(options.file).sweep
    except ManifestError as error:
        raise InputError(str(error)) from None
    accepted = accept(sweep, policy)
    if isinstance(accepted, Refused):
        raise InputError(f"{options.file}: {accepted.reason}: {accepted.message}")
    rungs = {rung.name: RungStatus(name=rung.name, runs=rung.runs) for rung in accepted.rungs}
    rungs[TARGET] = RungStatus(name=TARGET, runs=(accepted.target,))
    if options.rung is not None and options.rung not in rungs:
        raise InputError(f"there is no rung {options.rung!r}; there are: {', '.join(rungs)}")
    chosen = [rungs[options.rung]] if options.rung else [rungs[rung.name] for rung in accepted.rungs]
    named = {"trainer": options.trainer_image, "reporter": options.reporter_image}
    images = Images(**{name: image for name, image in named.items() if image})
    _write(list(_jobs(sweep, chosen, images)), options.output)
    return Exit.DONE


def _jobs(sweep: ScalingSweep, rungs: list[RungStatus], images: Any) -> Iterator[dict[str, Any]]:
    """The Job of each run's first attempt."""
    from sweep_operator.clusters.kubernetes.jobs import job_document

    known = sweep.changed(metadata=sweep.metadata.changed(uid=NO_UID))
    for rung in rungs:
        for planned in rung.runs:
            run = scaling_run(known, rung, planned)
            yield job_document(known, run.changed(metadata=run.metadata.changed(uid=NO_UID)), 1, images)


def _write(jobs: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": jobs}, indent=2, ensure_ascii=False))
        return
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.explicit_start = True
    yaml.width = 4096
    yaml.dump_all(json.loads(json.dumps(jobs)), sys.stdout)  # no value twice, or YAML would name it and point to it
