"""What Kafka says of the transactions of a source partition: is one of them being committed right now?

aiokafka does not know the request (KIP-664; brokers do since Kafka 3.0).
"""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from faust.types import TP

_PREPARED = "PrepareCommit"
#: TRANSACTIONAL_ID_NOT_FOUND: none was ever begun, or none for a week.
_NEVER = 105
_TEXT = CompactString("utf-8")


def transactional_id(writer_prefix: str, source: TP) -> str:
    """Return the transactional id of the owner of a source partition."""
    return f"{writer_prefix}-{source.topic}-{source.partition}"


class _Described(Response):
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


class _DescribeStruct(RequestStruct):
    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Described
    SCHEMA = Schema(("transactional_ids", CompactArray(_TEXT)), ("tags", TaggedFields))


class _Describe(Request[_DescribeStruct]):
    API_KEY = 65

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_DescribeStruct]) -> _DescribeStruct:
        return request_struct_class([self._name], {})


async def is_being_committed(consumer: AIOKafkaConsumer, name: str) -> bool:
    """Whether a transaction of this id is decided, and readers may not see it everywhere yet. Raises KafkaError."""
    client = consumer._client
    coordinator = await client.coordinator_lookup(CoordinationType.TRANSACTION, name)
    answer = await client.send(coordinator, _Describe(name), group=ConnectionGroup.COORDINATION)
    error, _, state, *_ = answer.states[0]
    if error and error != _NEVER:
        raise for_code(error)()
    return state == _PREPARED
