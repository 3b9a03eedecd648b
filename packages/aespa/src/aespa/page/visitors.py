"""Who is on the page: a session for each, a limit on how many, and none kept longer than needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from aespa.errors import DataError
from aespa.page.session import Session

IDLE_SECONDS = 3600.0


class Visitors:
    """The sessions of all visitors, by the name that the browser's page has.

    Args:
        make: Makes the session of a new visitor.
        limit: Sessions at a time.
        idle_seconds: A visitor who did nothing for so long makes room for a new one.
        clock: Seconds; replaced in tests.
    """

    def __init__(
        self,
        make: Callable[[], Session],
        limit: int,
        *,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._limit, self._idle_seconds, self._clock = make, limit, idle_seconds, clock
        self._sessions: dict[str, tuple[Session, float]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self._sessions)

    def sessions(self) -> list[Session]:
        """Return the sessions of all visitors."""
        with self._lock:
            return [session for session, _ in self._sessions.values()]

    def enter(self, name: str) -> tuple[Session, bool]:
        """Return a visitor's session and whether it is new.

        Raises:
            DataError: There are too many visitors.
        """
        with self._lock:
            now = self._clock()
            known = self._sessions.get(name)
            if known is None and len(self._sessions) >= self._limit:
                self._forget_idle(now)
            if known is None and len(self._sessions) >= self._limit:
                raise DataError(
                    f"{self._limit} visitors are here already, which is as many as this page takes; "
                    "close another tab, or come back later and load the page again"
                )
            session = self._make() if known is None else known[0]
            self._sessions[name] = (session, now)
            return session, known is None

    def leave(self, name: str) -> None:
        """Forget a visitor and everything told."""
        with self._lock:
            self._sessions.pop(name, None)

    def _forget_idle(self, now: float) -> None:
        for name, (_, seen) in list(self._sessions.items()):
            if now - seen > self._idle_seconds:
                del self._sessions[name]
