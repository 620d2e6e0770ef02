"""What operators see: counts and times, in the form of Prometheus; never what was said."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["Metrics"]

_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """Of one server.

    :param busy: seconds of work that the model has done.
    """

    def __init__(self, busy: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        here: Any = {"registry": self.registry}
        self.sessions = Gauge("lalia_sessions", "Sessions that are open.", ["protocol"], **here)
        self.opened = Counter("lalia_sessions_opened", "Sessions that were opened.", ["protocol"], **here)
        self.refused = Counter("lalia_refused", "Requests and sessions that were turned away.", ["reason"], **here)
        self.ended = Counter("lalia_sessions_ended", "Sessions that were ended, and why.", ["reason"], **here)
        self.events = Counter("lalia_events", "Events of the Realtime protocol.", ["direction", "type"], **here)
        self.requests = Counter("lalia_requests", "Requests by path and status.", ["path", "status"], **here)
        self.replies = Counter("lalia_replies", "Replies by how they ended.", ["status"], **here)
        self.heard = Counter("lalia_heard_seconds", "Sound that came in.", **here)
        self.spoken = Counter("lalia_spoken_seconds", "Sound that went out.", **here)
        self.first_sound = Histogram(
            "lalia_first_sound_seconds", "From a reply's being asked for to its first sound.", buckets=_SECONDS, **here
        )
        self.lag = Histogram(
            "lalia_event_wait_seconds", "From an event's arrival to its being done.", buckets=_SECONDS, **here
        )
        self.sessions.labels("realtime").set(0)
        work = Gauge("lalia_busy_seconds", "Work that the model has done.", **here)
        work.set_function(busy)

    def page(self) -> tuple[bytes, str]:
        """All of it, and its type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
