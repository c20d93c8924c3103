"""What Prometheus reads: requests by status, their latency, the sizes of batches, retries."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._collected = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._collected}
        requests = "Requests to /predict that were answered, by status"
        self.requests = Counter("raycls_serve_requests", requests, ["status"], **own)
        self.seconds = Histogram(
            "raycls_serve_request_seconds",
            "Seconds from the headers of a request to /predict to the end of its answer",
            buckets=_SECONDS,
            **own,
        )
        self.batches = Histogram("raycls_serve_batch_size", "Images that were computed together", buckets=_SIZES, **own)
        self.in_flight = Gauge("raycls_serve_in_flight", "Requests to /predict that are being answered", **own)
        self.retries = Counter("raycls_serve_retries", "Requests that were tried again as a replica died", **own)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._collected)

    def summary(self) -> str:
        """One line for the end of the server."""
        counts: dict[str, int] = {}
        for metric in self.requests.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total") and sample.value:
                    counts[sample.labels["status"]] = int(sample.value)
        each = ", ".join(f"{count:,} with {status}" for status, count in sorted(counts.items()))
        return f"answered {sum(counts.values()):,} requests" + (f": {each}" if each else "")
