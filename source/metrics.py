"""What the running source counts."""

from prometheus_client import Counter, Gauge

PUBLISHED = Counter("lately_source_rows_published", "Rows published, by what happened to them.", ["op"])
FAILURES = Counter("lately_source_failures", "Times that publishing stopped and was tried again, by cause.", ["cause"])
POLL = Gauge("lately_source_poll_seconds", "How long the last look for changes took.")
LEADER = Gauge("lately_source_leader", "1 while this source publishes, 0 while it waits for another one.")
WATERMARK_AGE = Gauge("lately_source_watermark_age_seconds", "How long the watermark has waited for transactions.")
