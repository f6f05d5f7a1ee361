"""Prometheus metrics of the running source."""

from prometheus_client import Counter, Gauge

PUBLISHED = Counter("lately_source_rows_published", "Rows published, by kind of change.", ["op"])
FAILURES = Counter("lately_source_failures", "Failures after which publishing was retried, by cause.", ["cause"])
POLL = Gauge("lately_source_poll_seconds", "Duration of the last read of changes.")
LEADER = Gauge("lately_source_leader", "1 while this source publishes, 0 while it waits for another source.")
WATERMARK_AGE = Gauge(
    "lately_source_watermark_age_seconds", "How long the watermark has been waiting for the ends of transactions."
)
