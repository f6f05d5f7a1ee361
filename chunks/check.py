"""Compares the installed libraries with the tested ones, before a worker joins its group."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from chunks.errors import UnsupportedLibrary

#: Distribution -> the only version whose internals were read and tested.
VERSIONS = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0", "rocksdict": "0.3.29"}

#: Methods that are overridden, and private methods that are called: "module:Class.method" -> its
#: parameters.
SIGNATURES = {
    "faust.assignor.partition_assignor:PartitionAssignor._compress": "raw",
    "faust.assignor.partition_assignor:PartitionAssignor._decompress": "compressed",
    "faust.assignor.partition_assignor:PartitionAssignor._get_copartitioned_groups": "topics, cluster, subscriptions",
    "faust.assignor.partition_assignor:PartitionAssignor._non_table_topics_filtered": "assignment, topics",
    "faust.assignor.partition_assignor:PartitionAssignor._perform_assignment": "self, cluster, member_metadata",
    "faust.assignor.partition_assignor:PartitionAssignor._topics_filtered": "assignment, topics",
    "faust.assignor.partition_assignor:PartitionAssignor.metadata": "self, topics",
    "faust.assignor.partition_assignor:PartitionAssignor.on_assignment": "self, assignment",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_worker_consumer": "self, transport",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._fetch_records": (
        "self, consumer, active_partitions, timeout, max_records"
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.verify_event_path": "self, now, tp",
    "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread": "self",
    "faust.transport.drivers.aiokafka:Consumer._to_message": "self, tp, record",
    "faust.transport.consumer:Consumer._add_gap": "self, tp, offset_from, offset_to",
    "faust.transport.consumer:Consumer._filter_tps_with_pending_acks": "self, topics",
    "faust.transport.consumer:Consumer._new_offset": "self, tp",
    "faust.transport.consumer:Consumer.force_commit": "self, topics, start_new_transaction",
    "faust.transport.consumer:Consumer.on_buffer_drop": "self, tp",
    "faust.transport.consumer:Consumer.on_buffer_full": "self, tp",
    "faust.transport.consumer:Consumer.on_partitions_assigned": "self, assigned, generation_id",
    "faust.transport.consumer:Consumer.on_partitions_revoked": "self, revoked",
    "faust.transport.consumer:Consumer.wait_empty": "self",
    "faust.transport.consumer:ConsumerThread.on_partitions_assigned": "self, assigned, generation_id",
    "faust.transport.consumer:ConsumerThread.on_partitions_revoked": "self, revoked",
    "faust.transport.consumer:ConsumerThread.seek_wait": "self, partitions",
    "faust.transport.consumer:ThreadDelegateConsumer._getmany": "self, active_partitions, timeout",
    "faust.transport.consumer:ThreadDelegateConsumer.perform_seek": "self",
    "faust.serializers.schemas:Schema.compile": (
        "self, app, on_key_decode_error, on_value_decode_error, default_propagate"
    ),
    "faust.streams:Stream.__aiter__": "self",
    "faust.tables.manager:TableManager.on_start": "self",
    "faust.tables.manager:TableManager.on_stop": "self",
    "faust.tables.recovery:Recovery.on_partitions_revoked": "self, revoked",
    "faust.tables.recovery:Recovery.on_rebalance": "self, assigned, revoked, newly_assigned, generation_id",
    "faust.tables.base:Collection.on_start": "self",
    "faust.tables.base:Collection.on_rebalance": "self, assigned, revoked, newly_assigned, generation_id",
    "aiokafka.client:AIOKafkaClient.coordinator_lookup": "self, coordinator_type, coordinator_key",
    "aiokafka.client:AIOKafkaClient.send": "self, node_id, request, group",
    "aiokafka.consumer.group_coordinator:GroupCoordinator.check_errors": "self",
    "aiokafka.consumer.group_coordinator:GroupCoordinator.request_rejoin": "self",
    "aiokafka.consumer.fetcher:Fetcher._create_fetch_waiter": "self",
    "aiokafka.consumer.fetcher:Fetcher._notify": "self, future",
    "aiokafka.consumer.fetcher:FetchResult._update_position": "self",
    "aiokafka.consumer.fetcher:FetchResult.check_assignment": "self, tp",
    "aiokafka.consumer.fetcher:PartitionRecords._consume_aborted_up_to": "self, batch_offset",
    "aiokafka.consumer.fetcher:PartitionRecords._contains_abort_marker": "self, next_batch",
    "aiokafka.producer.producer:AIOKafkaProducer.send_batch": "self, batch, topic, partition",
    "aiokafka.producer.message_accumulator:BatchBuilder.append": "self, timestamp, key, value, headers",
}


def check_libraries(versions: Mapping[str, str] = VERSIONS, signatures: Mapping[str, str] = SIGNATURES) -> None:
    """Compare versions and signatures with the tested ones.

    Raises UnsupportedLibrary, which names all differences.
    """
    differences = [*_version_differences(versions), *_signature_differences(signatures)]
    if differences:
        raise UnsupportedLibrary(
            f"the installed libraries do not fit this version of Lately: {'; '.join(differences)}. "
            "Install the pinned ones again: pip install --upgrade --force-reinstall lately"
        )


def _version_differences(versions: Mapping[str, str]) -> list[str]:
    installed = {}
    for name in versions:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "missing"
    return [
        f"{name} is {installed[name]}, tested is {tested}"
        for name, tested in versions.items()
        if installed[name] != tested
    ]


def _signature_differences(signatures: Mapping[str, str]) -> list[str]:
    differences = []
    for path, expected in signatures.items():
        module, _, names = path.partition(":")
        try:
            target: Any = importlib.import_module(module)
            for name in names.split("."):
                target = getattr(target, name)
        except (ImportError, AttributeError):
            differences.append(f"{path} does not exist")
            continue
        parameters = ", ".join(inspect.signature(target).parameters)
        if parameters != expected:
            differences.append(f"{path} takes ({parameters}), tested is ({expected})")
    return differences
