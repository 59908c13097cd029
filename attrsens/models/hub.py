"""Files of Hugging Face repositories: from its cache, else downloaded once, with size and sha256 stated."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrsens.errors import AttrsensError

log = logging.getLogger("attrsens")


def no_downloads(offline: bool) -> bool:
    """Whether nothing may be downloaded: by option, or by Hugging Face's own variable."""
    return offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_file(what: str, repo: str, names: Sequence[str], *, revision: str = "", offline: bool = False) -> Path:
    """The first of several files that a repository has.

    Args:
        what: who wants it, for messages.
        names: of the file, the preferred one first.
        revision: branch, tag or commit; "" is main.

    Raises:
        AttrsensError: not in the cache while downloads are off, no such repository or file, or no connection; the
            message names the file and where to put it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    places = [_place(repo, name, revision) for name in names]
    for place in places:
        if place.is_file():
            return place
    works = f"put {names[0]} of {repo} at {places[0]}"
    if no_downloads(offline):
        raise AttrsensError(f"{what}: {names[0]} is not in the cache and downloads are off; {works}")
    for name in names:
        try:
            with _quietly():
                path = Path(hf_hub_download(repo, name, revision=revision or None))
        except RepositoryNotFoundError:
            raise AttrsensError(f"{what}: the hub has no repository {repo} that is open to you; {works}") from None
        except RevisionNotFoundError:
            raise AttrsensError(f"{what}: repository {repo} has no revision {revision or 'main'}") from None
        except Exception as error:  # the network, the server and its answers can fail in any way
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise AttrsensError(f"{what}: download of {name} from {repo} failed ({_first(error)}); {works}") from None
        from attrsens.models.checkpoints import sha256_file

        log.info("downloaded %s (%.1f MB, sha256 %s)", path, path.stat().st_size / 1e6, sha256_file(path))
        return path
    raise AttrsensError(f"{what}: repository {repo} has no {' and no '.join(names)}")


def _place(repo: str, name: str, revision: str) -> Path:
    """Where the cache keeps a file, whether it was downloaded or somebody put it there by hand."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    known = folder / "refs" / (revision or "main")
    commit = known.read_text(encoding="utf-8").strip() if known.is_file() else revision or "main"
    return folder / "snapshots" / commit / name


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the hub's progress bars and its words on each retry; what fails in the end is told by our error."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown, verbosity = not are_progress_bars_disabled(), hub_logging.get_verbosity()
    disable_progress_bars()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if shown:
            enable_progress_bars()


def _first(error: Exception) -> str:
    """The first line of what went wrong at bottom: the hub wraps it in advice."""
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
