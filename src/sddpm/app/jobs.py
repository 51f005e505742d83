"""Background work whose progress a page shows, and that can be stopped."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
PAUSE = 0.1  # seconds between two checks of the progress: reports in between are not shown
AT_ONCE = 2


class Stopped(Exception):
    """The work was stopped."""


@dataclass
class Job:
    """Whether work should continue; `stop` can be called from any thread."""

    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopped.set()


@dataclass
class _Seen(Generic[T]):
    """The newest report of some work, and its outcome."""

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
        """Stop the running work of a visitor, in one view or in all; None stops that of all visitors."""
        with self._lock:
            self._closed = self._closed or visitor is None
            for (who, where), job in self._running.items():
                if visitor in (None, who) and view in (None, where):
                    job.stop()

    def follow(
        self, visitor: str, view: str, work: Callable[[Callable[[T], None]], T]
    ) -> Iterator[tuple[T | None, bool]]:
        """Run `work` in its own thread, replacing the visitor's running work in this view.

        Args:
            work: receives a function for reports, which raises `Stopped` when the work should end; returns the result.

        Yields:
            (None, False) while it waits for the work of others, then (the newest report, False) from time to time, and
            finally (the result, True).

        Raises:
            Stopped: the work was stopped.
            Exception: the exception of the work.
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
            job.stop()  # if the visitor has left
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
