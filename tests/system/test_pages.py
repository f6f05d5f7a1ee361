"""The pages in a real browser: they live, they work without scripts and on a phone, and anybody can use them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.kit.eventually import eventually
from tests.kit.stack import Stack, Worker

HOSTILE = "<script>document.title='owned'</script> & \"Söhne\" 😀"
NOW = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
#: Milliseconds after which the page must have changed; the servers share two cores with the browser.
WITHIN_MS = 20_000


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for all pages."""
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def shop(servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A shop with a few orders, its source and a worker, `shop.running`."""
    with Stack(servers, tmp_path_factory.mktemp("pages")) as stack:
        stack.create_orders()
        stack.setup()
        stack.source()
        worker = stack.worker().start().wait_ready()
        stack.insert(
            ("o1", HOSTILE, "ann", "19.90", NOW - timedelta(days=2), "card"),
            ("o2", "Case", "ann", "5.00", NOW - timedelta(hours=2), "card"),
            ("o3", "Case", "bob", "5.00", NOW - timedelta(hours=1), None),
            ("o3", "Cable", "bob", "3.00", NOW - timedelta(hours=1), None),
        )
        eventually(lambda: len(worker.purchases("ann")) == 2)
        eventually(lambda: worker.get("/v1/users/ann/recommendations").json["recommendations"], within=30)
        eventually(lambda: worker.totals("Case") == (2, "10.00"))
        stack.running = worker
        yield stack


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; whatever a script reports as an error fails the test."""
    context = browser.new_context(viewport={"width": 1024, "height": 800})
    one = context.new_page()
    errors: list[str] = []
    one.on("pageerror", lambda error: errors.append(str(error)))
    yield one
    context.close()
    assert errors == []


def url(worker: Worker, path: str) -> str:
    return f"http://127.0.0.1:{worker.port}{path}"


PAGES = [
    *("/", "/docs", "/users/ann", "/users/nobody", "/operator"),
    *(f"/products/{quote(HOSTILE, safe='')}", "/products/Case", "/products/Nothing", "/products?name=Case"),
]


def test_a_new_order_appears_on_the_open_home_page_without_a_reload(shop: Stack, page: Page):
    shop.insert(("n1", "Lamp", "nora", "1.00", NOW, "card"))
    eventually(lambda: len(shop.running.purchases("nora")) == 1)
    page.goto(url(shop.running, "/users/nora"))
    expect(page.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)
    page.evaluate("window.sameDocument = true")
    shop.insert(("n2", "Cable", "nora", "2.50", NOW, "card"))
    expect(page.locator("#purchases li")).to_have_count(2, timeout=WITHIN_MS)
    expect(page.locator("#purchases")).to_contain_text("Cable")
    # Who has the cable has a case too.
    expect(page.locator("#recommended")).to_contain_text("Case", timeout=WITHIN_MS)
    assert page.evaluate("window.sameDocument")


def test_an_open_page_reconnects_after_the_worker_was_killed_and_shows_what_came_meanwhile(shop: Stack, page: Page):
    shop.insert(("k1", "Lamp", "kim", "1.00", NOW, "card"))
    eventually(lambda: len(shop.running.purchases("kim")) == 1)
    page.goto(url(shop.running, "/users/kim"))
    expect(page.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)
    page.evaluate("window.sameDocument = true")
    quiet = page.context.new_page()
    quiet.goto(url(shop.running, "/users/nobody"))
    expect(quiet.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)
    shop.running.kill()
    expect(page.locator("#live")).to_contain_text("Reconnecting", timeout=WITHIN_MS)
    shop.insert(("k2", "Rope", "kim", "2.50", NOW, "card"))
    shop.running.start().wait_ready()
    expect(page.locator("#purchases")).to_contain_text("Rope", timeout=3 * WITHIN_MS)
    expect(page.locator("#live")).to_contain_text("Live")
    assert page.evaluate("window.sameDocument")
    expect(quiet.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)


def test_a_new_order_is_said_and_takes_neither_focus_nor_place_from_who_reads(shop: Stack, page: Page):
    shop.insert(*((f"f{n:02}", f"Lamp {n}", "fay", "1.00", NOW + timedelta(seconds=n), "card") for n in range(22)))
    eventually(lambda: len(shop.running.purchases("fay", 100)) == 22)
    page.goto(url(shop.running, "/users/fay"))
    expect(page.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)
    page.get_by_role("link", name="Lamp 12").focus()
    page.evaluate("window.read = document.activeElement")
    shop.insert(("f99", "Rope", "fay", "1.00", NOW + timedelta(seconds=99), "card"))
    expect(page.locator("#live")).to_have_text("Live. New: Rope", timeout=WITHIN_MS)
    names = [name.inner_text() for name in page.locator("#purchases .name").all()]
    assert names == ["Rope", *(f"Lamp {n}" for n in range(21, 2, -1))]
    assert page.evaluate("document.activeElement === window.read && document.contains(window.read)")
    # What is gone, what moves up in its place, and what changes is shown, but is not new.
    shop.execute("DELETE FROM orders WHERE order_id = 'f21'")
    shop.execute("UPDATE orders SET price = 7.77 WHERE order_id = 'f20'")
    expect(page.locator("#purchases li").last).to_contain_text("Lamp 2", timeout=WITHIN_MS)
    expect(page.locator("#purchases li").nth(1)).to_contain_text("7.77", timeout=WITHIN_MS)
    expect(page.locator("#live")).to_have_text("Live. New: Rope")
    assert page.evaluate("document.activeElement === window.read")


def test_a_page_that_nobody_looks_at_holds_no_connection_and_is_up_to_date_when_it_is_looked_at(
    shop: Stack, page: Page
):
    page.goto(url(shop.running, "/users/hal"))
    expect(page.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)
    look = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    look += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(look, True)
    shop.insert(("h1", "Rope", "hal", "1.00", NOW, "card"))
    eventually(lambda: len(shop.running.purchases("hal")) == 1)
    expect(page.locator("#purchases")).to_contain_text("No purchases yet.")
    page.evaluate(look, False)
    expect(page.locator("#purchases li")).to_have_count(1, timeout=WITHIN_MS)
    expect(page.locator("#live")).to_have_text("Live. New: Rope")


def test_the_home_page_works_without_scripts(shop: Stack, browser: Browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url(shop.running, "/"))
    page.get_by_label("User id").fill("ann")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#purchases li")).to_have_count(2)
    expect(page.locator("#purchases")).to_contain_text("paid by card")
    expect(page.locator("#recommended")).to_contain_text("1 customer bought this and Case")
    page.get_by_role("link", name="Cable").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cable")
    context.close()


def test_older_purchases_are_a_link_away_without_scripts(shop: Stack, browser: Browser):
    shop.insert(*((f"p{n:02}", f"Pen {n}", "pia", "1.00", NOW + timedelta(seconds=n), "card") for n in range(45)))
    eventually(lambda: len(shop.running.purchases("pia", 100)) == 45)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url(shop.running, "/users/pia"))
    about = page.locator("#about")
    expect(about).to_contain_text("Purchases 1 to 20, without gaps.")
    seen = [name.inner_text() for name in page.locator("#purchases .name").all()]
    page.get_by_role("link", name="Older purchases").click()
    expect(about).to_contain_text("Purchases 21 to 40")
    seen += [name.inner_text() for name in page.locator("#purchases .name").all()]
    page.get_by_role("link", name="Older purchases").click()
    expect(about).to_contain_text("These are the oldest purchases.")
    seen += [name.inner_text() for name in page.locator("#purchases .name").all()]
    assert seen == [f"Pen {n}" for n in reversed(range(45))]
    page.get_by_role("link", name="Newest purchases").click()
    expect(page.locator("#purchases li")).to_have_count(20)
    context.close()


def test_every_product_is_reached_by_its_link_and_says_when_it_was_not_bought_lately(shop: Stack, page: Page):
    names = ["..", ".", "a/b?c#d%2F", " spaced "]
    shop.insert(*(("d1", name, "dot", "1.00", NOW - timedelta(days=80), "card") for name in names))
    eventually(lambda: len(shop.running.purchases("dot")) == len(names))
    for name in names:
        eventually(lambda name=name: shop.running.totals(name) == (1, "1.00"))
        page.goto(url(shop.running, "/users/dot"))
        # The name as it is: a locator by name would take away its spaces.
        links = page.locator("#purchases a").all()
        next(one for one in links if one.evaluate("one => one.textContent") == name).click()
        expect(page.get_by_text("1 purchase, total 1.00")).to_be_visible()
        assert page.locator("h1").evaluate("one => one.textContent") == name
        expect(page.get_by_text("No purchases in the last 30 days.")).to_be_visible()


def test_a_product_page_shows_sales_and_what_goes_with_it_but_no_user(shop: Stack, page: Page):
    page.goto(url(shop.running, "/products/Case"))
    expect(page.get_by_text("2 purchases, total 10.00")).to_be_visible()
    expect(page.get_by_role("img", name="Purchases per day")).to_be_visible()
    assert page.locator(".chart rect").count() in (1, 2)  # two where midnight is between the orders
    expect(page.get_by_label("Similar products")).to_contain_text("Cable")
    expect(page.get_by_label("Newest purchases").locator("tbody tr")).to_have_count(2)
    assert "ann" not in page.locator("main").inner_text()
    assert "bob" not in page.locator("main").inner_text()


def test_the_operator_page_shows_how_the_worker_and_its_source_do(shop: Stack, page: Page):
    worker = shop.running
    page.goto(url(worker, "/operator"))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Worker http://127.0.0.1:{worker.port}")
    expect(page.get_by_text("It answers.")).to_be_visible()
    expect(page.locator("#live")).to_contain_text("Live", timeout=WITHIN_MS)
    source = page.get_by_label("Source")
    expect(source.get_by_role("row", name="Guarantee proven")).to_be_visible()
    expect(source.get_by_role("row", name="Snapshot done, 0 rows")).to_be_visible()
    expect(page.get_by_label("Recovery")).to_contain_text("changelog records read in")
    expect(page.get_by_label("Workers").get_by_role("row", name="(this worker) 0, 1")).to_be_visible()
    expect(page.get_by_label("Throughput")).to_contain_text("HTTP requests")
    expect(page.get_by_label("Partitions").locator("tbody tr")).to_have_count(8)
    # All that came is read.
    for row in page.get_by_label("Throughput").locator("tbody tr").all()[:4]:
        expect(row.locator("td").last).to_have_text("0", timeout=WITHIN_MS)
    page.evaluate("window.sameDocument = true")
    before = worker.get("/metrics").text.count("lately_dlq_open_records{")
    shop.publish("orders", (b"ann", b"no event"))
    letters = page.get_by_label("Dead letters")
    expect(letters.locator("tbody tr")).to_have_count(before + 1, timeout=WITHIN_MS)
    expect(letters).to_contain_text("malformed-json")
    assert page.evaluate("window.sameDocument")
    lags = [
        line for line in worker.get("/metrics").text.splitlines() if line.startswith("lately_consumer_lag_records{")
    ]
    assert len(lags) == 8
    assert f'topic="{shop.name}-orders"' in "".join(lags)


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_serious_barrier(shop: Stack, page: Page, path: str):
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(url(shop.running, path))
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found
                if one["impact"] in ("serious", "critical")] == []  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_fits_on_a_phone(shop: Stack, page: Page, path: str):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(url(shop.running, path))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("path", PAGES)
def test_no_value_and_no_later_script_runs_on_any_page(shop: Stack, page: Page, path: str):
    page.goto(url(shop.running, path))
    page.evaluate(
        "() => { const one = document.createElement('script'); one.textContent = 'window.owned = 1';"
        " document.body.append(one); }"
    )
    assert page.evaluate("window.owned") is None
    assert page.title() != "owned"
