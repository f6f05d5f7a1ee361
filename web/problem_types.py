"""The codes of Lately's own problems, for the declarations of the routes."""

from __future__ import annotations

from web.http import problems
from web.http.problems import ProblemType

PROBLEM_TYPES = {
    **problems.PROBLEM_TYPES,
    "invalid-order-id": ProblemType(400, "the order id breaks the rules for order ids"),
    "invalid-product-name": ProblemType(400, "the product name breaks the rules for product names"),
    "unknown-product": ProblemType(404, "nobody bought a product with this name"),
    "unknown-order": ProblemType(404, "no trace of the order; `detail` lists the searched places"),
    "agent-elsewhere": ProblemType(421, "no process runs the required agent, see `LATELY_AGENTS`"),
    "not-ready": ProblemType(503, "the worker recovers its tables or waits for its group"),
    "no-progress": ProblemType(503, "the worker has unread records, and its position does not advance"),
    "recovery-stalled": ProblemType(503, "the recovery of the tables does not advance"),
    "kafka-away": ProblemType(503, "Kafka does not respond"),
    "source-silent": ProblemType(503, "no source reports its state"),
    "recovering": ProblemType(503, "the tables are being recovered; with `Retry-After`"),
    "owner-away": ProblemType(503, "the worker that owns this user or product does not respond; with `Retry-After`"),
    "too-stale": ProblemType(503, "the data is older than `max_lag_ms`; with `Retry-After`"),
    "source-away": ProblemType(503, "MySQL is needed, and does not respond; with `Retry-After`"),
    "log-away": ProblemType(503, "Kafka is needed, and does not respond; with `Retry-After`"),
    "too-many-streams": ProblemType(503, "the worker has `LATELY_STREAMS` streams open; with `Retry-After`"),
    "not-up-to-position": ProblemType(503, "`after_order` did not arrive within `wait_ms`; with `Retry-After`"),
    "routing-loop": ProblemType(508, "a forwarded request arrived at a worker that does not own the partition"),
}

#: Of each route that reads a partition of a table, which another worker may own.
ROUTED = ("agent-elsewhere", "recovering", "owner-away", "routing-loop")
#: Of each route with query parameters.
QUERY = ("unknown-parameter", "invalid-parameter")
