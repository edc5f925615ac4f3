"""`scalingsweep lint`: what the API server and the operator would say of manifests, offline.

Owns nothing but the order of the checks; the sentences are the manifest reader's and acceptance's.
"""

import argparse
import sys
from pathlib import Path

from sweep_operator.acceptance import Accepted, Refused, accept
from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.clusters import Unavailable
from sweep_operator.clusters.local.earlier import imported
from sweep_operator.manifest import ManifestError, read_documents, read_policy, understand, unsendable
from sweep_operator.policy import Policy


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="manifests (YAML or JSON)")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the platform's policy (YAML)")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """One line a document; every fault of a schema on a line of its own."""
    faults = 0
    try:
        policy = read_policy(options.policy)
    except ManifestError as error:
        raise InputError(str(error)) from None
    for path in options.files:
        try:
            documents = list(read_documents(path))
        except ManifestError as error:
            faults += _say(error)
            continue
        if not documents:
            faults += _say(ManifestError(f"{path} is empty; it should hold a ScalingSweep"))
        for document in documents:
            faults += _check(path, document, policy)
    return Exit.BAD_INPUT if faults else Exit.DONE


def _check(path: Path, document: dict[str, object], policy: Policy) -> int:
    """The number of faults found in one document."""
    if document.get("kind") != "ScalingSweep":
        print(f"{path}: {document.get('kind') or 'a document without a kind'}: not checked, it is no ScalingSweep")
        return 0
    try:
        manifest = understand(path, document)
    except ManifestError as error:
        return _say(error)
    if faults := unsendable(path, manifest.written):
        return _say(ManifestError(faults[0], faults))
    match accept(manifest.sweep, policy):
        case Refused(reason, message):
            return _say(ManifestError(f"{path}: {reason}: {message}"))
        case Accepted(rungs):
            if any(source.file for source in manifest.sweep.spec.records):
                try:
                    imported(manifest.sweep, path.resolve().parent)
                except Unavailable as finding:
                    return _say(ManifestError(f"{path}: RecordsUnavailable: {finding}"))
            runs = sum(len(rung.runs) for rung in rungs)
            print(f"{path}: {manifest.sweep.metadata.name}: fine, {len(rungs)} rungs of {runs} runs in all")
    return 0


def _say(error: ManifestError) -> int:
    for fault in error.faults:
        print(fault, file=sys.stderr)
    return len(error.faults)
