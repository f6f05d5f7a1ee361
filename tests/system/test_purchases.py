"""A user's purchases over HTTP: pages, groups and filters equal SQL, live streams have no gap, bad input is named."""

from __future__ import annotations

import http.client
import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode

import pytest

from tests.kit.eventually import eventually
from tests.kit.shared_shop import SharedShop
from tests.kit.stack import Stack, Worker
from tests.kit.streams import open_stream, order_ids

NOW = datetime(2026, 1, 31, 12)
USERS = [f"user-{number}" for number in range(996)] + ["a/b", "ünïcode 😀", "50%", "User-1"]
PRODUCTS = ["Phone", "phone", "Case", "Compüter", "A/C <b>&"]
PAYMENTS = ["card", "paypal", "a+b & c", None]
#: Few, so that most purchases are kept beside the newest ones, and lists have to be put together.
SMALL = {"LATELY_RECENT_LIMIT": "3", "LATELY_RECENT_SPARE": "2"}


@pytest.fixture
def running(stack: Stack) -> Worker:
    """A worker behind a source that follows a shop."""
    return begin(stack)


def begin(stack: Stack, **env: str) -> Worker:
    stack.create_orders()
    stack.setup()
    stack.source()
    return stack.worker(**{"LATELY_HEARTBEAT_S": "1", **env}).start().wait_ready()


def path(user: str, **parameters: object) -> str:
    return f"/v1/users/{quote(user, safe='')}/purchases?{urlencode(parameters)}"


class Reader:
    """Asks one worker over one connection."""

    def __init__(self, worker: Worker) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)

    def close(self) -> None:
        self.connection.close()

    def get(self, path: str) -> dict:
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, (path, body)
        link = answer.getheader("Link")
        assert (link is None) == ("next_cursor" not in body), path
        body["next"] = None if link is None else link.removeprefix("<").removesuffix('>; rel="next"')
        assert body["meta"]["complete"] is True
        return body

    def walk(self, rows: str, path: str) -> list[dict]:
        """The rows of all pages, by the addresses that the pages name."""
        found = []
        following: str | None = path
        while following is not None:
            page = self.get(following)
            found += page[rows]
            assert page["next"] is None or len(page[rows]) == page["meta"]["limit"]
            following = page["next"]
        return found


# --- equal to SQL --------------------------------------------------------------------------------------------


def trade(stack: Stack, dice: random.Random, orders: int, users: list[str]) -> None:
    """Orders with changes, moves and removals between them; few distinct moments, so that ties have to be broken."""
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        placed = []
        for number in range(orders):
            at = NOW + timedelta(minutes=dice.randrange(300))
            # Some users buy much more than the others.
            user = dice.choice(users if dice.random() < 0.9 else users[:10])
            for product in dice.sample(PRODUCTS, dice.choice([1, 1, 1, 2, 3])):
                line = (f"o{number:05}", product)
                cursor.execute(
                    "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (*line, user, f"{dice.randrange(1, 200_000) / 100:.2f}",
                     at + timedelta(microseconds=dice.choice([0, 0, 1])), dice.choice(PAYMENTS)),
                )  # fmt: skip
                placed.append(line)
            while dice.random() < 0.4:
                change(cursor, dice, placed, users)
            if number % 50 == 0:
                connection.commit()
        connection.commit()


def change(cursor, dice: random.Random, placed: list[tuple], users: list[str]) -> None:
    line = dice.choice(placed)
    where = " WHERE order_id = %s AND product_name = %s"
    kind = dice.randrange(5)
    if kind == 0:
        cursor.execute("UPDATE orders SET price = price + 1" + where, line)
    elif kind == 1:
        cursor.execute("UPDATE orders SET user_id = %s" + where, (dice.choice(users), *line))
    elif kind == 2:
        cursor.execute("UPDATE orders SET ordered_at = ordered_at - INTERVAL 1 HOUR" + where, line)
    elif kind == 3:
        cursor.execute("UPDATE orders SET payment_method = 'invoice'" + where, line)
    else:
        cursor.execute("DELETE FROM orders" + where, line)
        placed.remove(line)


LIST = """SELECT user_id, order_id, product_name, CAST(price AS CHAR), ordered_at, payment_method FROM orders
 WHERE {where} ORDER BY user_id, ordered_at DESC, order_id DESC, product_name DESC"""
BY_ORDER = """SELECT user_id, order_id, MAX(ordered_at), COUNT(*), CAST(SUM(price) AS CHAR) FROM orders
 WHERE {where} GROUP BY user_id, order_id ORDER BY user_id, MAX(ordered_at) DESC, order_id DESC"""
BY_PRODUCT = """SELECT user_id, product_name, purchases, last, spent FROM (
 SELECT user_id, product_name, COUNT(*) AS purchases, MAX(ordered_at) AS last, CAST(SUM(price) AS CHAR) AS spent,
 MAX(CONCAT(DATE_FORMAT(ordered_at, '%Y%m%d%H%i%S%f'), order_id)) AS newest FROM orders
 WHERE {where} GROUP BY user_id, product_name) AS grouped ORDER BY user_id, newest DESC, product_name DESC"""


def by_user(rows: list[tuple], users: list[str]) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {user: [] for user in users}
    for user, *row in rows:
        found[user].append(tuple(text(one) for one in row))
    return found


def text(one: object) -> object:
    return f"{one.isoformat()}Z" if isinstance(one, datetime) else one


def lines(rows: list[dict]) -> list[tuple]:
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    names = ("order_id", "product_name", "price", "ordered_at", "payment_method")
    return [tuple(row[name] for name in names) for row in rows]


def orders(rows: list[dict]) -> list[tuple]:
    return [(row["order_id"], row["ordered_at"], len(row["items"]), row["total"]) for row in rows]


def products(rows: list[dict]) -> list[tuple]:
    return [(row["product_name"], row["purchases"], row["last_ordered_at"], row["spent"]) for row in rows]


SINCE, UNTIL = NOW + timedelta(minutes=100), NOW + timedelta(minutes=250)
FILTERS = [
    ("1 = 1", {}),
    (f"ordered_at >= '{SINCE}'", {"since": f"{SINCE.isoformat()}Z"}),
    (f"ordered_at < '{UNTIL}' AND payment_method = 'a+b & c'",
     {"until": f"{(UNTIL + timedelta(hours=1)).isoformat()}+01:00", "payment_method": "a+b & c"}),
    (f"ordered_at >= '{SINCE}' AND ordered_at < '{UNTIL}' AND payment_method = 'card'",
     {"since": f"{SINCE.isoformat()}.000Z", "until": f"{UNTIL.isoformat()}Z", "payment_method": "card"}),
]  # fmt: skip
GROUPS = [(LIST, {}, "purchases", lines), (BY_ORDER, {"group_by": "order"}, "orders", orders),
          (BY_PRODUCT, {"group_by": "product"}, "products", products)]  # fmt: skip


@pytest.mark.cost(25)
@pytest.mark.parametrize(
    ("orders_placed", "users"), [(1_000, USERS[-200:]), pytest.param(5_000, USERS, marks=pytest.mark.slow)],
    ids=["200 users", "1,000 users"],
)  # fmt: skip
def test_every_page_group_and_filter_equals_sql_after_a_random_history(
    stack: Stack, orders_placed: int, users: list[str]
):
    dice = random.Random(20260131)
    worker = begin(stack, **SMALL)
    trade(stack, dice, orders_placed, users)
    eventually(stack.outbox_is_empty, within=120)
    total = stack.high_watermark("orders")
    eventually(lambda: worker.events() >= total, within=60)
    truth = by_user(stack.select(LIST.format(where="1 = 1")), users)
    with closing(Reader(worker)) as reader:
        for user in users:
            eventually(lambda user=user: lines(reader.walk("purchases", path(user, limit=7))) == truth[user])
        for where, chosen in FILTERS:
            for statement, grouped, rows, shape in GROUPS:
                truth = by_user(stack.select(statement.format(where=where)), users)
                for user in users:
                    asked = path(user, **chosen, **grouped, limit=dice.choice([1, 2, 3, 5, 20, 100]))
                    assert shape(reader.walk(rows, asked)) == truth[user], asked
        for _, grouped, rows, _ in GROUPS:
            for user in users[:5]:
                whole = reader.walk(rows, path(user, **grouped, limit=100))
                assert len(whole) > 3
                for limit in range(1, len(whole) + 2):
                    assert reader.walk(rows, path(user, **grouped, limit=limit)) == whole
                assert reader.walk(rows, path(user, **grouped, limit=4, consistency="source")) == whole
        for user in dice.sample(users, 50):
            for _, grouped, rows, _ in GROUPS:
                here, there = (
                    reader.get(path(user, **grouped, limit=3, consistency=consistency))
                    for consistency in ("active", "source")
                )
                assert here[rows] == there[rows]
                assert (here["meta"]["role"], there["meta"]["role"], there["meta"]["lag_ms"]) == ("active", "source", 0)


# --- paging --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group_by", "names"), [(None, ("order_id", "product_name")), ("order", ("order_id",)),
                                                 ("product", ("product_name",))])  # fmt: skip
def test_while_orders_arrive_no_page_repeats_or_skips_what_was_there_at_the_first(
    small_shop: SharedShop, group_by: str | None, names: tuple[str, ...]
):
    stack, worker = small_shop.stack, small_shop.worker
    ann, dice = small_shop.name("ann"), random.Random(7)

    def some(kind: str, count: int) -> list[tuple]:
        return [
            (small_shop.name(f"{kind}{number:03}"), f"Phone {dice.randrange(12)}", ann, "1.00",
             NOW + timedelta(minutes=dice.randrange(30)), "card")
            for number in range(count)
        ]  # fmt: skip

    stack.insert(*some("first", 30))
    eventually(lambda: len(worker.purchases(ann, 100)) == 30)
    grouped = {"group_by": group_by} if group_by else {}
    rows = {None: "purchases", "order": "orders", "product": "products"}[group_by]
    with closing(Reader(worker)) as reader:
        whole = reader.get(path(ann, limit=100, **grouped))[rows]
        following, seen, count = path(ann, limit=2, **grouped), [], 30
        while following is not None:
            page = reader.get(following)
            seen += page[rows]
            following = page["next"]
            if count < 60:
                stack.insert(*some(f"later{count}", 3))
                count += 3
                eventually(lambda count=count: len(worker.purchases(ann, 100)) == count)
    said = [tuple(row[name] for name in names) for row in seen]
    assert len(said) == len(set(said)), "shown twice"
    assert {tuple(row[name] for name in names) for row in whole} <= set(said), "skipped"


# --- read your own order -------------------------------------------------------------------------------------


def test_an_answer_waits_for_the_order_it_shall_contain(shared_shop: SharedShop):
    stack, worker = shared_shop.stack, shared_shop.worker
    ann, other, mine = shared_shop.names("ann", "other", "mine")
    asked = path(ann, after_order=mine, wait_ms=5000)
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(worker.get, asked) for _ in range(3)]
        stack.insert((other, "Phone", ann, "1.00", NOW, None))
        stack.insert((mine, "Phone", ann, "1.00", NOW, None))
        for answer in answers:
            assert answer.result().status == 200
            assert mine in [row["order_id"] for row in answer.result().json["purchases"]]
    assert worker.get(path(ann, after_order=mine)).status == 200
    assert worker.get(path(ann, after_order=mine, consistency="source")).status == 200
    stack.execute("DELETE FROM orders WHERE order_id = %s", (mine,))
    eventually(lambda: [line[0] for line in worker.purchases(ann)] == [other])
    assert worker.get(path(ann, after_order=mine)).status == 200, "it has arrived, and is removed since"


def test_an_order_that_does_not_arrive_in_time_is_said_to_be_missing(shared_shop: SharedShop):
    ann, bob, o1 = shared_shop.names("ann", "bob", "o1")
    shared_shop.stack.insert((o1, "Phone", bob, "1.00", NOW, None))
    eventually(lambda: len(shared_shop.worker.purchases(bob)) == 1)
    for user, asked in (
        (ann, {"after_order": o1}),
        (ann, {"after_order": o1, "wait_ms": 50}),
        (ann, {"after_order": o1, "consistency": "source"}),
        (bob, {"after_order": "1"}),
    ):
        answer = shared_shop.worker.get(path(user, **asked))
        assert (answer.status, answer.json["code"]) == (503, "not-up-to-position"), asked
        assert answer.headers["Retry-After"] == "1"


def test_an_answer_that_may_be_too_old_is_refused(shared_shop: SharedShop):
    ann, worker = shared_shop.name("ann"), shared_shop.worker
    eventually(lambda: worker.get(path(ann, max_lag_ms=10**18)).status == 200)
    answer = worker.get(path(ann, max_lag_ms=0))
    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "too-stale", "1")
    assert worker.get(path(ann, max_lag_ms=0, consistency="source")).status == 200


@pytest.mark.both_databases
def test_what_mysql_says_is_as_of_the_moment_before_it_was_read(stack: Stack, running: Worker):
    # The lock also includes the outbox, which the triggers use: on MySQL the source waits as well.
    waiting = (
        "SELECT UTC_TIMESTAMP(6) FROM information_schema.processlist"
        " WHERE state LIKE 'Waiting for table%' AND info LIKE '%FROM `orders`%'"
    )
    with closing(stack.connect()) as shop, closing(shop.cursor()) as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("LOCK TABLES orders WRITE")
        answer = pool.submit(running.get, path("ann", consistency="source"))
        eventually(lambda: len(stack.select(waiting)) == 1)
        ((now,),) = stack.select(waiting)
        cursor.execute("UNLOCK TABLES")
        as_of = answer.result().json["meta"]["as_of"]
    assert datetime.fromisoformat(as_of.removesuffix("Z")) < now


# --- live ----------------------------------------------------------------------------------------------------


def test_a_stream_tells_of_purchases_that_are_kept_beside_the_newest(small_shop: SharedShop):
    stack, worker, ann = small_shop.stack, small_shop.worker, small_shop.name("ann")
    orders = small_shop.names(*(f"o{number}" for number in range(9)))
    stack.insert(*[(order, "Phone", ann, "1.00", NOW + timedelta(days=day), None) for day, order in enumerate(orders)])
    eventually(lambda: len(worker.purchases(ann)) == 9)
    with open_stream(worker, ann, "?limit=9&group_by=product") as live:
        assert live.event()[1]["products"][0]["spent"] == "9.00"
        stack.execute("UPDATE orders SET price = 5 WHERE order_id = %s", (orders[0],))
        assert live.event()[1]["products"][0]["spent"] == "13.00"


def test_after_the_death_of_the_worker_a_stream_goes_on_without_a_gap(stack: Stack, running: Worker):
    stack.insert(("o1", "Phone", "ann", "1.00", NOW, None))
    eventually(lambda: len(running.purchases("ann")) == 1)
    with open_stream(running) as live:
        seen, _ = live.event()
        running.kill()
        with pytest.raises((EOFError, OSError, http.client.HTTPException)):
            live.event()
    stack.insert(("o2", "Phone", "ann", "1.00", NOW, None))
    running.start().wait_ready()
    with open_stream(running, Last_Event_ID=seen) as live:
        said: list[str] = []
        while "o2" not in said:
            said = order_ids(live.event()[1])
    assert said == ["o2", "o1"]


def test_a_worker_that_stops_ends_its_streams(running: Worker):
    with open_stream(running) as live:
        live.event()
        with ThreadPoolExecutor() as pool:
            stopping = pool.submit(running.stop)
            with pytest.raises(EOFError):
                live.read_to_end()
            stopping.result()


def test_a_stream_ends_when_partitions_are_given_out_anew(stack: Stack, running: Worker):
    stack.insert(("o1", "Phone", "ann", "1.00", NOW, None))
    eventually(lambda: len(running.purchases("ann")) == 1)
    with open_stream(running) as live:
        seen, _ = live.event()
        second = stack.worker("second", LATELY_HEARTBEAT_S="1").start()
        with pytest.raises(EOFError):
            live.read_to_end()
    second.wait_ready()
    eventually(lambda: running.get("/readyz").status == 200, within=60)
    for worker in (running, second):
        with open_stream(worker, Last_Event_ID=seen) as live:
            live.assert_quiet()


# --- many users, several workers -----------------------------------------------------------------------------


def without_meta(answer: dict) -> dict:
    return {name: said for name, said in answer.items() if name != "meta"}


def test_another_worker_hands_on_everything(stack: Stack, running: Worker):
    second = stack.worker("second", LATELY_HEARTBEAT_S="1").start().wait_ready()
    eventually(lambda: running.get("/readyz").status == 200, within=60)
    users = [f"user-{number}" for number in range(20)]
    stack.insert(*[(f"{user}-{number}", "Phone", user, "1.00", NOW, None) for number in range(2) for user in users])
    for user in users:
        eventually(lambda user=user: len(second.purchases(user)) == 2, within=30)
    there = f"http://127.0.0.1:{running.port}"
    away = next(user for user in users if second.get(path(user)).json["meta"]["worker"] == there)
    at_home = next(user for user in users if second.get(path(user)).json["meta"]["worker"] != there)

    first = second.get(path(away, limit=1))
    assert second.get(path(away, limit=1), If_None_Match=first.headers["ETag"]).status == 304
    _, _, rest = first.headers["Link"].removesuffix('>; rel="next"').partition("/v1/")
    assert second.get(f"/v1/{rest}").json["purchases"][0]["position"] == 2
    assert second.get(path(away, limit=1), method="HEAD").headers["ETag"] == first.headers["ETag"]

    with ThreadPoolExecutor() as pool:
        late = pool.submit(second.get, path(away, after_order="late", wait_ms=5000))
        missing = second.get(path(away, after_order="never", wait_ms=600))
        assert (missing.status, missing.json["code"]) == (503, "not-up-to-position"), "the hop has the time of the wait"
        stack.insert(("late", "Phone", away, "1.00", NOW, None))
        assert late.result().status == 200

    query = "&".join(f"user_id={user}" for user in users)
    many = second.get(f"/v1/purchases?{query}")
    assert many.json["meta"]["complete"] is True
    assert {one["meta"]["worker"] for one in many.json["users"]} == {there, f"http://127.0.0.1:{second.port}"}
    for one, other in zip(running.get(f"/v1/purchases?{query}").json["users"], many.json["users"], strict=True):
        assert without_meta(one) == without_meta(other)

    with open_stream(second, away) as live:
        seen, data = live.event()
        assert data["meta"]["worker"] == there
        live.assert_quiet()
        stack.insert(("later", "Phone", away, "1.00", NOW, None))
        assert "later" in order_ids(live.event()[1])
        with open_stream(second, away, Last_Event_ID=seen) as again:
            assert "later" in order_ids(again.event()[1])
        running.kill()
        with pytest.raises((EOFError, OSError, http.client.HTTPException)):
            live.read_to_end()

    # Until the group notices, the dead worker's users have an error of their own.
    many = second.get(f"/v1/purchases?{query}")
    assert (many.status, many.json["meta"]["complete"]) == (200, False)
    said = {one["user_id"]: one for one in many.json["users"]}
    assert said[away]["error"]["code"] == "owner-away"
    assert "error" not in said[at_home]
    alone = second.get(f"/v1/purchases?user_id={away}")
    assert (alone.status, alone.json["code"], alone.headers["Retry-After"]) == (503, "owner-away", "1")

    def complete_again() -> bool:
        answer = second.get(f"/v1/purchases?{query}")
        return answer.status == 200 and answer.json["meta"]["complete"]

    eventually(complete_again, within=60)
