"""Where things lie: what comes with the library, and what it keeps on this machine."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

DATA = Path(__file__).parent / "data"
STORIES_FILE = DATA / "stories.jsonl"  # the bundled corpus: {"text": …} a line
DOMAINS_FILE = DATA / "domains.jsonl"  # what is measured besides it: {"domain": …, "text": …} a line
OUTPUT_FOLDER = "outputs"  # of runs, in the working folder


def cache_folder() -> Path:
    """Where built models and working files are kept: $CPTLIB_CACHE, or cptlib in the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("CPTLIB_CACHE") or user_cache_path("cptlib", appauthor=False))


def locked(name: str) -> AbstractContextManager[object]:
    """A context that one process at a time is in, for each name; the others wait."""
    from filelock import FileLock

    cache_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_folder() / f"{name}.lock")
