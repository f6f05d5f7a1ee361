"""The transactional id of a source partition's owner, and the state of its transaction.

aiokafka does not implement the request for that state (KIP-664; brokers do since Kafka 3.0).
"""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from faust.types import TP

_PREPARE_COMMIT = "PrepareCommit"
#: The error code TRANSACTIONAL_ID_NOT_FOUND: no transaction was started, or none for a week.
_ID_NOT_FOUND = 105
_TEXT = CompactString("utf-8")


def transactional_id(writer_prefix: str, source: TP) -> str:
    """Return the transactional id of the owner of a source partition."""
    return f"{writer_prefix}-{source.topic}-{source.partition}"


class _DescribeTransactionsResponse(Response):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "states",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", _TEXT),
                ("state", _TEXT),
                ("timeout_ms", Int32),
                ("started_at", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                ("topics", CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields))),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeTransactionsStruct(RequestStruct):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribeTransactionsResponse
    SCHEMA = Schema(("transactional_ids", CompactArray(_TEXT)), ("tags", TaggedFields))


class _DescribeTransactions(Request[_DescribeTransactionsStruct]):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 65

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_DescribeTransactionsStruct]) -> _DescribeTransactionsStruct:
        return request_struct_class([self._name], {})


async def is_being_committed(consumer: AIOKafkaConsumer, name: str) -> bool:
    """Return whether the transaction of this id is committed, but not yet visible to all readers.

    Raises KafkaError.
    """
    client = consumer._client
    coordinator = await client.coordinator_lookup(CoordinationType.TRANSACTION, name)
    response = await client.send(coordinator, _DescribeTransactions(name), group=ConnectionGroup.COORDINATION)
    error, _, state, *_ = response.states[0]
    if error and error != _ID_NOT_FOUND:
        raise for_code(error)()
    return bool(state == _PREPARE_COMMIT)
