"""One writer per table, enforced on the volume that holds the table."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class LeaseError(Exception):
    """A table's place does not let us write there; the message names LAKEHOUSE_ROOT."""


class LeaseTimeout(LeaseError):
    """Another writer kept the table for longer than this one would wait."""


@contextmanager
def lease(path: Path, holder: str, patience_seconds: float, say: Callable[[str], None]) -> Iterator[float]:
    """Hold the only right to write the table at `path`; yields the seconds spent waiting for it.

    The lock is the kernel's (`flock`): it ends with its holder, also by SIGKILL, and no one has to clear it up.
    `holder` is what others are told while they wait.

    Raises:
        LeaseTimeout: it was not free within `patience_seconds`; the message names who holds it.
        LeaseError: nothing can be written beside the table.
    """
    note = path.with_name(f".{path.name}.writer")
    lock = FileLock(
        path.with_name(f".{path.name}.lock"), thread_local=False, fallback_to_soft=False, preserve_lock_file=True
    )
    started = time.monotonic()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            writer = note.read_text() if note.exists() else "another writer"
            say(f"Waiting for {writer}, who writes {path}")
            try:
                lock.acquire(timeout=patience_seconds)
            except Timeout:
                raise LeaseTimeout(
                    f"{writer} has been writing {path} for over {patience_seconds:.0f} s. Wait for it or end it: "
                    f"the lock {lock.lock_file} is free as soon as its process is gone."
                ) from None
        note.write_text(f"{holder} (process {os.getpid()} on {socket.gethostname()})")
    except OSError as error:
        lock.release()
        raise LeaseError(
            f"Cannot write {path} (LAKEHOUSE_ROOT): {error}. Make the folder writable, or choose another."
        ) from None
    try:
        yield time.monotonic() - started
    finally:
        lock.release()
