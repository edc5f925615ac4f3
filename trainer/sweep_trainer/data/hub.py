"""Files of a dataset on the Hugging Face hub, by an address: hf://datasets/OWNER/NAME[@REVISION]/PATH.

Owns their download into the cache, once for each revision of the dataset, and the sentence for what cannot be had.
`*` and `?` in the path stand for parts of it. HF_ENDPOINT and HF_TOKEN say which hub and who asks. Reads no file: what
was downloaded is read as any other.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from sweep_trainer.corpus import BadDataError, DataError

_ADDRESS = re.compile(r"hf://datasets/(?P<dataset>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<path>.*[^/])")


def downloaded(address: str, folder: Path) -> list[Path]:
    """The files that an address names, in order, in a folder that keeps them.

    Raises DataError where the hub cannot be reached, BadDataError where it has no such thing for us.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise BadDataError(f"{address} is no dataset's file; write hf://datasets/OWNER/NAME/PATH, or NAME@REVISION")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise BadDataError(f"{address} needs the package huggingface-hub; install scalingsweep[trainer]") from None
    dataset, revision, pattern = parts.group("dataset", "revision", "path")
    hub = HfApi()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        there = sorted(hub.list_repo_files(dataset, repo_type="dataset", revision=revision))
        chosen = [path for path in there if fnmatchcase(path, pattern)]
        places = [
            hub.hf_hub_download(dataset, path, repo_type="dataset", revision=revision, cache_dir=folder)
            for path in chosen
        ]
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = "revision" if isinstance(error, RevisionNotFoundError) else "dataset"
        raise BadDataError(f"{address}: the hub has no such {what}, or HF_TOKEN does not open it") from None
    except Exception as error:  # the errors of its HTTP client share no base class with its own
        raise DataError(f"{address} cannot be downloaded ({_first_line(error)}); try again later") from error
    if not places:
        raise BadDataError(f"{address}: no file matches; the dataset has {', '.join(there[:8]) or 'none'}")
    return [Path(place) for place in places]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
