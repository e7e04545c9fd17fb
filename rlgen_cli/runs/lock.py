"""One process at a time writes in a run's folder, and at an entry of the cache.

The system lets go of a lock when its process ends, however it ends, so that none is ever stale.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from rlgen_cli.core import checkpoint, ranks
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.states import LOCK

log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from writing in a run's folder meanwhile, and clear away what killed ones left behind. Of
    several ranks, the first does it for all.

    Raises:
        UserError: where another process holds it.
    """
    if not ranks.first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"run: another process is at work in {folder}; wait until it ends, or name another folder."
        ) from None
    try:
        for place in (folder, folder / "checkpoints", *(folder / "stages").glob("*")):
            checkpoint.recover(place)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def cache_entry(path: Path) -> Iterator[Path | None]:
    """The entry of the cache at `path`, once no other process is making it; None where the cache cannot be written,
    and for all ranks but the first."""
    if not ranks.first():
        yield None
        return
    lock = FileLock(path.with_name(f".lock_{path.name}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("waiting for another process that makes the same (%s)", path)
            lock.acquire()
    except OSError as error:
        log.warning("cache: %s cannot be written (%s); what is fitted stays with this run.", path, error.strerror)
        yield None
        return
    try:
        checkpoint.recover(path.parent, path.name)
        yield path
    finally:
        lock.release()
