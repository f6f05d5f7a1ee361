"""The metrics of a worker for Prometheus; docs/operations/metrics.md lists the names and labels."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram, Info

from app.version import __version__

EVENTS = Counter("lately_events_total", "Events read, by agent and result", ["agent", "type", "result"])
DUPLICATES = Counter("lately_events_duplicate_total", "Events without effect: duplicate, or older than the register")
FRESHNESS = Histogram(
    "lately_freshness_seconds", "Time from a change in MySQL until it is visible, for the last change of each chunk",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
)  # fmt: skip
DEAD_LETTERS = Counter("lately_dlq_records_total", "Records sent to orders-dead, by reason", ["reason"])
REBUILDS = Counter("lately_rebuilds_total", "Lost partitions of tables, by reason", ["table", "reason"])
INCOMPLETE = Gauge("lately_incomplete_partitions", "Partitions with permanently missing records, by table", ["table"])
OPEN_DEAD_LETTERS = Gauge(
    "lately_dlq_open_records", "Records in orders-dead neither retried nor dropped, by reason", ["reason"]
)
OLDEST_DEAD_LETTER_AGE = Gauge("lately_dlq_open_oldest_seconds", "Age of the oldest of these records; NaN: none")
REQUESTS = Histogram(
    "lately_http_request_duration_seconds", "Time from a complete request to its response",
    ["route", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)  # fmt: skip
FALLBACKS = Counter(
    "lately_fallback_answers_total", "Responses about users without the owner of their partition, by role", ["role"]
)
# Of the source: set in its own process, and from its status in every worker.
GUARANTEE = Gauge("lately_source_guarantee", "1 for the guarantee of the source: proven, timed or none", ["level"])
OLDEST_PENDING_CHANGE = Gauge("lately_source_oldest_pending_seconds", "Age of the oldest unpublished change")
SOURCE_PROBLEMS = Gauge("lately_source_problems", "Problems of the shop's table, the triggers and the outbox", ["kind"])
SOURCE_SILENCE = Gauge("lately_source_silent_seconds", "Time since the last status of a source; NaN: no status yet")
LAG = Gauge("lately_consumer_lag_records", "Offsets that this worker has not read yet", ["topic", "partition"])
KEYS = Gauge("lately_table_keys", "Estimated number of keys in a table's partitions on this worker", ["table"])
REBALANCES = Counter("lately_rebalances_total", "Assignments of partitions to this worker")
RECOVERY = Gauge("lately_recovery_seconds", "Duration of the last or present recovery of the tables")
DIFFERENCES = Gauge("lately_verify_differences", "Purchases that differed from MySQL at the last comparison", ["kind"])
VERIFY_AGE = Gauge(
    "lately_verify_age_seconds", "Time since the start of the last comparison without differences; NaN: none yet"
)
READY = Gauge("lately_ready", "1 while the tables of this worker are recovered and it may answer")
STUCK = Gauge("lately_stuck", "1 while work of this worker makes no progress, by reason", ["reason"])
#: Metrics that a source leaves out: it has no values for them, and 0 would be a value.
WORKER_ONLY = (SOURCE_SILENCE, RECOVERY, VERIFY_AGE, READY)
BUILD = Info("lately_build", "Version of Lately")
BUILD.info({"version": __version__})


def set_problems(kinds: Iterable[str]) -> None:
    """Set the number of problems of the source by kind; other kinds have no value."""
    SOURCE_PROBLEMS.clear()
    for kind in kinds:
        SOURCE_PROBLEMS.labels(kind).inc()
