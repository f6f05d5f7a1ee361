"""`python -m pytest bench`: the measurements and formulas of the capacity page are correct."""

from faust.assignor.partition_assignor import PartitionAssignor

from bench import footprint
from bench.footprint import parse_traffic, table_bytes, topic_bytes
from bench.partition_cost import max_workers, simulate_group_bytes
from bench.sizing import BUSY, CALM, CapacityCase, capacity_table, format_size, format_time

LISTED = """\
ESTAB 0 0 127.0.0.1:41000 127.0.0.1:9092 users:(("python",pid=7,fd=9))
\t cubic wscale:7,7 rto:204 bytes_sent:100 bytes_acked:101 bytes_received:20 segs_out:5
ESTAB 0 0 127.0.0.1:41002 127.0.0.1:9092 users:(("python",pid=7,fd=10))
\t cubic wscale:7,7 rto:204 bytes_acked:1 bytes_received:3 segs_out:5
ESTAB 0 0 127.0.0.1:41004 127.0.0.1:9092 users:(("java",pid=8,fd=10))
\t cubic wscale:7,7 rto:204 bytes_sent:9 bytes_acked:10
"""


def test_the_bytes_of_all_connections_of_a_process_are_added():
    assert parse_traffic(LISTED) == {7: {"sent": 100, "received": 23}, 8: {"sent": 9}}
    assert parse_traffic("") == {}


def test_logs_are_counted_by_topic_and_files_by_table(tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "LOGS", tmp_path / "kafka")
    for name, content in (
        ("kafka/d4-orders-0/0.log", b"1234"), ("kafka/d4-orders-11/0.log", b"5"), ("kafka/d4-orders-0/0.index", b"6"),
        ("state/v1/tables/by_user-0.db/1.sst", b"12"), ("state/v1/tables/by_user-1.db/LOG", b"3"), ("state/lock", b"4"),
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert topic_bytes() == {"d4-orders": 5}
    assert table_bytes(tmp_path / "state") == {"by_user": 3}


def test_the_record_of_a_group_grows_with_partitions_and_faster_with_workers():
    assert simulate_group_bytes(16, 2) < simulate_group_bytes(64, 2)
    assert 4 * simulate_group_bytes(64, 4, PartitionAssignor) > simulate_group_bytes(64, 8, PartitionAssignor)
    assert simulate_group_bytes(64, 8, PartitionAssignor) > 2 * simulate_group_bytes(64, 4, PartitionAssignor)


def test_the_assignor_of_our_own_leaves_more_room_than_that_of_faust():
    assert simulate_group_bytes(64, 8) < simulate_group_bytes(64, 8, PartitionAssignor)


def test_the_most_workers_are_those_whose_record_just_fits():
    workers = max_workers(16, 10_000)
    assert simulate_group_bytes(16, workers) <= 10_000 < simulate_group_bytes(16, workers + 1)


def test_a_shop_that_one_source_cannot_follow_is_counted_as_several():
    assert CapacityCase(10**7, 13_000, 100).lines == 1
    assert CapacityCase(10**7, 100_000, 100).lines == 8


def test_a_small_shop_has_three_of_everything_and_a_larger_one_never_less_than_a_smaller():
    small, large = CapacityCase(10**5, 100, 10), CapacityCase(10**7, 12_000, 3_000)
    for ratios in (CALM, BUSY):
        assert small.workers(ratios) == small.machines(ratios) == small.brokers(ratios) == 3
        assert large.workers(ratios) > 3
        assert large.machine_hours(ratios) >= small.machine_hours(ratios)
        assert large.recovery_s(ratios) > large.takeover_s == small.takeover_s


def test_the_table_has_two_numbers_only_where_the_ratios_differ():
    rows = dict(
        line.strip("| ").split(" | ")
        for line in capacity_table([CapacityCase(10**7, 100_000, 10_000)]).splitlines()[2:]
    )
    assert rows["lines: a source, and a Lately"] == "8"
    assert " or " in rows["brokers"]


def test_bytes_and_seconds_are_shown_for_people():
    assert [format_size(count) for count in (999, 1_500, 25_000_000, 3.25e12, 4.8e13)] == [
        "999 B",
        "1.5 kB",
        "25 MB",
        "3.2 TB",
        "48 TB",
    ]
    assert [format_time(seconds) for seconds in (12, 119, 600, 9_000)] == ["12 s", "119 s", "10 min", "2.5 h"]
