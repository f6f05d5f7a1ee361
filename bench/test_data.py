"""`python -m pytest bench`: the data is valid, and a part replaces only its own results."""

from collections import Counter

from bench.data import DataSet, generate_records
from bench.report import rounded, write_section
from domain.events import read_event


def test_every_record_is_an_event_that_lately_accepts():
    data = DataSet(orders=5_000, users=700)
    events = [read_event(key, value) for key, value in generate_records(data)]
    assert len({event.data.order_id for event in events}) == 5_000
    assert len({event.data.user_id for event in events}) == 700
    assert [event.data.version for event in events] == sorted(event.data.version for event in events)
    times = [event.data.ordered_at for event in events]
    assert times != sorted(times)
    assert (max(times) - min(times)).days in (27, 28)


def test_the_data_is_the_same_every_time():
    assert list(generate_records(DataSet(100, 30))) == list(generate_records(DataSet(100, 30)))


def test_as_many_orders_as_users_means_every_user_once():
    assert set(Counter(key for key, _ in generate_records(DataSet(1_000, 1_000))).values()) == {1}


def test_some_products_sell_much_better_than_others():
    sold = Counter(read_event(key, value).data.product_name for key, value in generate_records(DataSet(5_000, 500)))
    assert sold.most_common(1)[0][0] == "Phone 1"
    assert sold.most_common(1)[0][1] > 300 < len(sold)


def test_a_section_replaces_only_itself(tmp_path):
    path = tmp_path / "results.md"
    write_section(path, "One", "first")
    write_section(path, "Two", "second\n\n### with a part")
    write_section(path, "One", "third")
    text = path.read_text()
    assert "first" not in text
    assert text.index("third") < text.index("second") < text.index("with a part")
    assert text.count("## One") == 1
    assert text.startswith("# ")


def test_rates_show_three_digits():
    assert [rounded(number) for number in (123_456, 1_852, 99.6, 0)] == ["123,000", "1,850", "99.6", "0"]
