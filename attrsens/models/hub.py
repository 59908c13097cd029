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
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        found = try_to_load_from_cache(repo, name, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    works = f"put {names[0]} of {repo} at {_place(repo, names[0], revision)}"
    if no_downloads(offline):
        raise AttrsensError(f"{what}: {names[0]} is not in the cache and downloads are off; {works}")
    for name in names:
        try:
            with _without_bars():
                path = Path(hf_hub_download(repo, name, revision=revision or None))
        except LocalEntryNotFoundError as error:
            raise AttrsensError(f"{what}: download of {name} from {repo} failed ({_first(error)}); {works}") from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # the network, the server and its answers can fail in any way
            raise AttrsensError(f"{what}: download of {name} from {repo} failed ({_first(error)}); {works}") from None
        from attrsens.models.checkpoints import sha256_file

        log.info("downloaded %s (%.1f MB, sha256 %s)", path, path.stat().st_size / 1e6, sha256_file(path))
        return path
    raise AttrsensError(f"{what}: repository {repo} has no {' and no '.join(names)}")


def _place(repo: str, name: str, revision: str) -> Path:
    """Where the cache looks for a file that somebody puts there by hand."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    known = folder / "refs" / (revision or "main")
    commit = known.read_text(encoding="utf-8").strip() if known.is_file() else revision or "main"
    return folder / "snapshots" / commit / name


@contextmanager
def _without_bars() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
