"""A key has the partition that Kafka's own producers choose."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from domain.partitioning import partition_of


@given(st.binary(max_size=70), st.integers(1, 1000))
def test_a_partition_is_what_murmur2_says(key, partitions):
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


def test_known_keys_have_the_hashes_that_java_gives_them():
    # From org.apache.kafka.common.utils.UtilsTest.
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536,
             b"a-little-bit-longer-string": -1486304829, b"abc": 479470107}  # fmt: skip
    assert {key: partition_of(key, 2**31) for key in hashes} == {
        key: value & 0x7FFFFFFF for key, value in hashes.items()
    }
