"""What the server counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # a time beside each counter, which nobody asks for
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        of_tail = ("model", "tail")

        def histogram(name: str, what: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"splitrun_{name}", what, of_tail, buckets=buckets, registry=registry)

        self.requests = Counter(
            "splitrun_requests", "Answered requests.", ("path", "status"), registry=registry
        )
        self.streams = Counter(
            "splitrun_streams", "Streams.", (*of_tail, "outcome"), registry=registry
        )
        self.errors = Counter("splitrun_errors", "Errors.", ("kind",), registry=registry)
        self.received = Counter("splitrun_received_bytes", "Bytes of bodies.", registry=registry)
        self.reloads = Counter(
            "splitrun_reloads", "Bundles read again.", ("outcome",), registry=registry
        )
        self.queue = Gauge(
            "splitrun_queue_streams", "Streams that wait or are in work.", registry=registry
        )
        self.batch_size = histogram(
            "batch_size", "Streams run at once.", (1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.queue_seconds = histogram("queue_seconds", "Time that a stream waited.")
        self.decode_seconds = histogram("decode_seconds", "Time of a stream's entropy decoding.")
        self.graph_seconds = histogram("graph_seconds", "Time of a batch in the edge graph.")

    def text(self) -> bytes:
        """Return all counters as Prometheus reads them."""
        return generate_latest(self._registry)
