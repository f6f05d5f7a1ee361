"""Every cache has a limit of entries, and of the length of texts that come from outside."""

from __future__ import annotations

import ast
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.partitioning import MAX_CACHED_BYTES, _cached_partition, partition_of
from domain.prices import MAX_PRICE_CHARS, _is_price, is_valid_price
from domain.totals import _amount, _short_amount
from web.http.accept import MAX_CACHED_CHARS, _choose_cached, choose_media_type

ROOT = Path(__file__).parents[1]
PACKAGES = ("agents", "app", "chunks", "commands", "domain", "source", "tables", "web")
DECORATORS = {"lru_cache", "cache"}
#: All caches of functions, and why their keys are few or short.
CACHES = {
    "app/settings.py:_types": "has no parameter",
    "app/tls.py:_context": "settings",
    "chunks/store.py": "settings",
    "domain/partitioning.py:_partition": "checked below",
    "domain/prices.py:_is_price": "checked below",
    "domain/totals.py:_short_amount": "checked below",
    "web/docs.py": "has no parameter",
    "web/http/accept.py:_choose": "checked below",
    "web/http/problems.py:_histogram": "routes, known methods and status codes",
    "web/purchase_query.py:_default": "a setting",
    "web/purchases_answer.py:_encode_terms": "a bounded number, a boolean and a role",
}


def name_of(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def caches() -> Iterator[str]:
    """Each function with a cache, as "file:function"."""
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = path.relative_to(ROOT).as_posix()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if DECORATORS & {name_of(decorator) for decorator in node.decorator_list}:
                    yield f"{name}:{node.name}"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Call) and name_of(node.func) in DECORATORS:
                yield f"{name}:{name_of(node.args[0])}"


def test_all_caches_are_known_and_have_a_reason_to_be_bounded():
    found = {cache if cache in CACHES else cache.partition(":")[0] for cache in caches()}
    assert found == set(CACHES)


LONG = 890_000


@pytest.mark.parametrize(
    ("call", "cached", "longest"),
    [
        (is_valid_price, _is_price, MAX_PRICE_CHARS),
        (_amount, _short_amount, MAX_PRICE_CHARS),
        (lambda text: partition_of(text.encode(), 4), _cached_partition, MAX_CACHED_BYTES),
        (lambda text: choose_media_type(text, ("text/html",)), _choose_cached, MAX_CACHED_CHARS),
    ],
)
def test_only_short_texts_are_kept(call: Callable, cached: Callable, longest: int):
    cached.cache_clear()
    for length, entries in ((1, 1), (longest, 2), (longest + 1, 2), (100 * longest, 2)):
        call("1" * length)
        assert cached.cache_info().currsize == entries
    assert cached.cache_info().maxsize <= 65_536


def test_long_prices_take_no_memory():
    tracemalloc.start()
    for number in range(100):
        assert not is_valid_price(f"{number}" * (LONG // 2))
    assert tracemalloc.get_traced_memory()[0] < 2 * LONG
    tracemalloc.stop()
