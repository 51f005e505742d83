"""Work that goes on while a page shows how far it is, and that can be stopped."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
PAUSE = 0.1  # seconds between two looks at how far the work is: what came in between is not shown
AT_ONCE = 2


class Stopped(Exception):
    """The work was stopped on the way."""


@dataclass
class Job:
    """Whether work is to go on; `stop` may be called from any thread."""

    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopped.set()


@dataclass
class _Seen(Generic[T]):
    """The newest report of some work, and how it ended."""

    newest: T | None = None
    fresh: bool = False
    result: T | None = None
    error: BaseException | None = None


class Jobs:
    """The work of all visitors, one job for each of their views."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Job] = {}
        self._places = threading.Semaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._closed = False

    def stop(self, visitor: str | None, view: str | None = None) -> None:
        """Stop what a visitor has running, in one view or in all; of None, what everybody has."""
        with self._lock:
            self._closed = self._closed or visitor is None
            for (who, where), job in self._running.items():
                if visitor in (None, who) and view in (None, where):
                    job.stop()

    def follow(
        self, visitor: str, view: str, work: Callable[[Callable[[T], None]], T]
    ) -> Iterator[tuple[T | None, bool]]:
        """Do `work` in a thread of its own, in place of what the visitor had running in this view.

        Args:
            work: gets a function to report with, which raises `Stopped` when it is to end, and returns its result.

        Yields:
            (None, False) while it waits for others', then (the newest report, False) now and then, and at last (the
            result, True).

        Raises:
            Stopped: it was stopped.
            Exception: of the work.
        """
        job, seen = self._begin(visitor, view), _Seen[T]()
        try:
            while not self._places.acquire(timeout=PAUSE):
                if job.stopped.is_set():
                    raise Stopped
                yield None, False
            thread = threading.Thread(target=self._work, args=(job, seen, work), name=f"sddpm-{view}")
            thread.start()
            while thread.is_alive():
                thread.join(PAUSE)
                if seen.fresh and thread.is_alive():
                    seen.fresh = False
                    yield seen.newest, False
        finally:
            job.stop()  # if nobody looks any more
            with self._lock:
                if self._running.get((visitor, view)) is job:
                    del self._running[visitor, view]
        if seen.error is not None:
            raise seen.error
        yield seen.result, True

    def _begin(self, visitor: str, view: str) -> Job:
        job = Job()
        with self._lock:
            before, self._running[visitor, view] = self._running.get((visitor, view)), job
            if before is not None:
                before.stop()
            if self._closed:
                job.stop()
        return job

    def _work(self, job: Job, seen: _Seen[T], work: Callable[[Callable[[T], None]], T]) -> None:
        def report(item: T) -> None:
            if job.stopped.is_set():
                raise Stopped
            seen.newest, seen.fresh = item, True

        try:
            seen.result = work(report)
        except BaseException as error:
            seen.error = error
        finally:
            self._places.release()
