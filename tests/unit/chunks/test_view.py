"""What an agent step sees: its own changes, over what waits, over what is being committed, over the disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunks.keys import position_key
from chunks.store import Store
from chunks.view import TableState, TableView, ValueCache
from tests.kit.depth import examples

UNKNOWN = object()


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("store") / "by_user-0.db", block_cache_bytes=2**20).open()
    yield opened
    opened.close()


@pytest.fixture
def state(store: Store) -> TableState:
    """Each key under its newest layer: disk, under way, waiting."""
    store.apply([(key, b"disk") for key in (b"a", b"b", b"c", b"d", b"gone", b"gone later")], 6)
    state = TableState("by_user", store, ValueCache(10**6))
    under_way = {b"b": b"under way", b"c": b"under way", b"d": b"under way", b"gone": None, b"new": b"under way"}
    waiting = {b"c": b"waiting", b"d": b"waiting", b"gone later": None, b"newer": b"waiting"}
    state.uncommitted = [waiting, under_way]
    return state


EXPECTED = {
    b"a": b"disk", b"b": b"under way", b"c": b"waiting", b"d": b"mine", b"gone": None, b"gone later": None,
    b"new": b"under way", b"newer": b"waiting", b"never": None,
}  # fmt: skip


def test_the_newest_layer_counts(state):
    view = TableView(state)
    view[b"d"] = b"mine"

    assert {key: view.get(key) for key in EXPECTED} == EXPECTED
    assert view.get_many(EXPECTED) == EXPECTED
    assert dict(view.scan(b"")) == {key: value for key, value in EXPECTED.items() if value is not None}
    assert sorted(view.scan(b"new")) == [(b"new", b"under way"), (b"newer", b"waiting")]


def test_what_is_deleted_in_the_step_is_gone_in_it(state):
    view = TableView(state)
    view.update(dict.fromkeys(EXPECTED))

    assert view.get_many(EXPECTED) == dict.fromkeys(EXPECTED)
    assert list(view.scan(b"")) == []


def test_what_is_deleted_comes_back_when_it_is_assigned_again(state):
    view = TableView(state)
    view[b"gone"] = b"back"
    view[b"a"] = None
    view[b"a"] = b"again"

    assert (view.get(b"gone"), view.get(b"a")) == (b"back", b"again")
    assert {key: value for key, value in view.scan(b"") if key in (b"gone", b"a")} == {b"gone": b"back", b"a": b"again"}


def test_the_cache_comes_before_the_layers_below_the_step(state):
    state.cache.update("by_user", {b"c": b"waiting", b"gone": None, b"x": b"cached"})
    view = TableView(state)

    assert view.get_many([b"c", b"gone", b"x", b"a"]) == {
        b"c": b"waiting", b"gone": None, b"x": b"cached", b"a": b"disk",
    }  # fmt: skip
    assert [view.get(key) for key in (b"c", b"gone", b"x", b"a")] == [b"waiting", None, b"cached", b"disk"]


def test_an_empty_value_is_a_value(state):
    view = TableView(state)
    view[b"a"] = b""
    state.cache.update("by_user", {b"b": b""})

    assert view.get_many([b"a", b"b"]) == {b"a": b"", b"b": b""}
    assert (view.get(b"a"), view.get(b"b")) == (b"", b"")
    assert (b"a", b"") in list(view.scan(b"a"))


def test_asking_for_the_same_key_twice_or_for_none_is_allowed(state):
    view = TableView(state)

    assert view.get_many([b"a", b"never", b"a", b"never"]) == {b"a": b"disk", b"never": None}
    assert view.get_many([]) == {}
    assert view.get_many(key for key in (b"a",)) == {b"a": b"disk"}


def test_changes_of_a_step_are_seen_by_nobody_else(state):
    mine, other = TableView(state), TableView(state)
    mine[b"a"] = b"mine"

    assert (mine.get(b"a"), other.get(b"a"), state.store.get(b"a")) == (b"mine", b"disk", b"disk")


def test_a_scan_shows_none_of_the_engines_own_keys(store):
    """The position is among the changes of a transaction under way, and on disk after it."""
    state = TableState("by_user", store, ValueCache(10**6))
    state.uncommitted = [{}, {b"a": b"1", position_key("orders"): b"7"}]
    view = TableView(state)
    assert list(view.scan(b"")) == [(b"a", b"1")]

    store.apply(state.uncommitted.pop().items(), 1)
    assert list(view.scan(b"")) == [(b"a", b"1")]


# -- the cache


def cached(cache: ValueCache, key: bytes, table: str = "by_user") -> object:
    """What the cache knows of a key, as a view asks it."""
    young, old = cache.generations(table)
    return young.get(key, old.get(key, UNKNOWN))


entries = st.dictionaries(st.binary(min_size=1, max_size=1), st.none() | st.binary(max_size=200), max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["by_user", "totals"]), entries), max_size=40), st.integers(0, 4_000))
def test_the_cache_knows_the_newest_value_of_each_table_or_nothing(updates, limit):
    cache, models = ValueCache(limit), {"by_user": {}, "totals": {}}
    for table, values in updates:
        cache.update(table, values)
        models[table].update(values)
        for name, model in models.items():
            for key in model:
                assert cached(cache, key, name) in (model[key], UNKNOWN)
            assert {key for part in cache.generations(name) for key in part} <= set(model)


def test_the_cache_stays_within_its_limit_and_keeps_what_was_changed_last():
    cache, limit = ValueCache(100_000), 100_000
    for number in range(10_000):
        cache.update("by_user", {b"%d" % number: b"x" * 100})
        assert cached(cache, b"%d" % number) == b"x" * 100
        kept = sum(len(key) + len(value) for part in cache.generations("by_user") for key, value in part.items())
        assert kept <= limit
    assert cached(cache, b"0") is UNKNOWN
    assert all(cached(cache, b"%d" % number) is not UNKNOWN for number in range(9_900, 10_000))


def test_a_cache_without_room_forgets_but_never_lies():
    cache = ValueCache(0)
    cache.update("by_user", {b"a": b"1"})
    cache.update("by_user", {b"a": b"2"})
    cache.update("by_user", {b"b": b"1"})

    assert cached(cache, b"a") in (b"2", UNKNOWN)


# -- everything together, as the task uses it


keys = st.binary(min_size=1, max_size=2)
changes = st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=5)
actions = st.lists(st.tuples(st.sampled_from(["step", "step", "step", "begin", "commit"]), changes), max_size=30)
_examples = iter(range(10**9))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for many examples, each under a prefix of its own."""
    opened = Store(tmp_path_factory.mktemp("store") / "shared.db").open()
    yield opened
    opened.close()


@examples(200)
@given(actions, st.sampled_from([0, 300, 1_000, 10**6]), st.binary(max_size=1))
def test_through_steps_transactions_and_evictions_a_table_is_a_dict(shared, actions, cache_bytes, prefix):
    here = b"%09d" % next(_examples)
    state, model, offset = TableState("by_user", shared, ValueCache(cache_bytes)), {}, 0
    waiting: dict = {}
    under_way: dict = {}
    state.uncommitted = [waiting]
    for action, values in actions:
        if action == "step":
            view = TableView(state)
            for key, value in values.items():
                view[here + key] = value
            model.update(values)
            assert_is(view, model, here, prefix)
            state.cache.update("by_user", view.changes)
            waiting.update(view.changes)
        elif action == "begin" and not under_way:
            under_way, waiting = waiting, {}
            state.uncommitted = [waiting, under_way]
        elif action == "commit":
            offset += 1
            shared.apply(under_way.items(), offset)
            # What is in the store may still be in a layer for a moment.
            assert_is(TableView(state), model, here, prefix)
            under_way = {}
            state.uncommitted = [waiting]
        assert_is(TableView(state), model, here, prefix)


def assert_is(view: TableView, model: dict, here: bytes, prefix: bytes) -> None:
    asked = {*model, b"never"}
    assert view.get_many([here + key for key in asked]) == {here + key: model.get(key) for key in asked}
    assert all(view.get(here + key) == model.get(key) for key in asked)
    found = list(view.scan(here + prefix))
    expected = {here + key: value for key, value in model.items() if key.startswith(prefix) and value is not None}
    assert dict(found) == expected
    assert len(found) == len(expected)
