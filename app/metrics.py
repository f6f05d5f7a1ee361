"""What Prometheus may ask of a worker; names and labels are listed in docs/operations.md."""

from prometheus_client import Counter, Gauge, Info

from app import __version__

EVENTS = Counter("lately_events_total", "Events read, by agent and result", ["agent", "type", "result"])
DEAD = Counter("lately_dlq_records_total", "Records sent to orders-dead, by reason", ["reason"])
REBUILDS = Counter("lately_rebuilds_total", "Partitions of tables that were lost, and why", ["table", "reason"])
INCOMPLETE = Gauge("lately_incomplete_partitions", "Partitions that miss something for good, by table", ["table"])
OPEN = Gauge("lately_dlq_open_records", "Records in orders-dead neither retried nor dropped, by reason", ["reason"])
OPEN_AGE = Gauge("lately_dlq_open_oldest_seconds", "Age of the oldest of them; NaN: there are none")
REQUESTS = Counter(
    "lately_http_requests_total", "HTTP requests answered, by route, method and status", ["route", "method", "status"]
)
# Of the source, in its own process and, as far as it was told, in every worker.
GUARANTEE = Gauge("lately_source_guarantee", "1 for what the source can promise: proven, timed or none", ["level"])
OLDEST = Gauge("lately_source_oldest_pending_seconds", "Age of the oldest change that is not published yet")
SILENT = Gauge("lately_source_silent_seconds", "Time since a source last said how it stands; NaN: none ever did")
LAG = Gauge("lately_consumer_lag_records", "Offsets that this worker has yet to read", ["topic", "partition"])
RECOVERY = Gauge("lately_recovery_seconds", "How long the last recovery of the tables took, or takes so far")
DIFFERENCES = Gauge("lately_verify_differences", "Purchases that differed from MySQL when last compared", ["kind"])
VERIFY_AGE = Gauge("lately_verify_age_seconds", "Time since a comparison began that left no difference; NaN: none did")
READY = Gauge("lately_ready", "1 while the tables of this worker are recovered and it may answer")
#: A source knows none of these, and as 0 they would say something.
OF_WORKERS = (SILENT, RECOVERY, VERIFY_AGE, READY)
BUILD = Info("lately_build", "Version of Lately")
BUILD.info({"version": __version__})
