"""What Prometheus may ask of a worker; names and labels are listed in docs/operations.md."""

from prometheus_client import Counter, Gauge, Histogram, Info

from app.version import __version__

EVENTS = Counter("lately_events_total", "Events read, by agent and result", ["agent", "type", "result"])
DUPLICATES = Counter(
    "lately_events_duplicate_total", "Events that changed nothing: known already, or older than what is"
)
FRESHNESS = Histogram(
    "lately_freshness_seconds", "Time from a change in MySQL until it is shown, of the last change of each chunk",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
)  # fmt: skip
DEAD = Counter("lately_dlq_records_total", "Records sent to orders-dead, by reason", ["reason"])
REBUILDS = Counter("lately_rebuilds_total", "Partitions of tables that were lost, and why", ["table", "reason"])
INCOMPLETE = Gauge("lately_incomplete_partitions", "Partitions that miss something for good, by table", ["table"])
OPEN = Gauge("lately_dlq_open_records", "Records in orders-dead neither retried nor dropped, by reason", ["reason"])
OPEN_AGE = Gauge("lately_dlq_open_oldest_seconds", "Age of the oldest of them; NaN: there are none")
REQUESTS = Histogram(
    "lately_http_request_duration_seconds", "Time from a request that is read to its answer",
    ["route", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)  # fmt: skip
FALLBACKS = Counter(
    "lately_fallback_answers_total", "Answers about users for want of the owner of their partition, by role", ["role"]
)
# Of the source, in its own process and, as far as it was told, in every worker.
GUARANTEE = Gauge("lately_source_guarantee", "1 for what the source can promise: proven, timed or none", ["level"])
OLDEST = Gauge("lately_source_oldest_pending_seconds", "Age of the oldest change that is not published yet")
SILENT = Gauge("lately_source_silent_seconds", "Time since a source last said how it stands; NaN: none ever did")
LAG = Gauge("lately_consumer_lag_records", "Offsets that this worker has yet to read", ["topic", "partition"])
KEYS = Gauge(
    "lately_table_keys", "About how many keys the partitions of a table have that this worker keeps", ["table"]
)
REBALANCES = Counter("lately_rebalances_total", "Times that this worker was given partitions")
RECOVERY = Gauge("lately_recovery_seconds", "How long the last recovery of the tables took, or takes so far")
DIFFERENCES = Gauge("lately_verify_differences", "Purchases that differed from MySQL when last compared", ["kind"])
VERIFY_AGE = Gauge("lately_verify_age_seconds", "Time since a comparison began that left no difference; NaN: none did")
READY = Gauge("lately_ready", "1 while the tables of this worker are recovered and it may answer")
STUCK = Gauge("lately_stuck", "1 while something stands still that has to move, by reason", ["reason"])
#: A source knows none of these, and as 0 they would say something.
OF_WORKERS = (SILENT, RECOVERY, VERIFY_AGE, READY)
BUILD = Info("lately_build", "Version of Lately")
BUILD.info({"version": __version__})
