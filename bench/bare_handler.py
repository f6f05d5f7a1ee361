"""The limit of a Python process: an aiohttp handler that sends the bytes in RocksDB for a user.

Run it as a process: `python -m bench.bare_handler PORT FOLDER USERS PURCHASES`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aiohttp import web
from rocksdict import AccessType, Options, Rdict, WriteBatch

from bench.data import user_id

BATCH = 10_000


def write_answers(folder: Path, users: int, purchases: int) -> None:
    """Write a response for each user."""
    rows = [
        {
            "order_id": f"o{number:07d}", "product_name": "Headset 17", "price": "89.90",
            "ordered_at": "2026-01-31T12:00:00.048817Z", "payment_method": "card", "category": None,
            "position": number + 1,
        }
        for number in range(purchases)
    ]  # fmt: skip
    answer = {
        "user_id": "", "purchases": rows,
        "meta": {
            "limit": 20, "complete": True, "as_of": "2026-01-31T12:00:01.250301Z", "lag_ms": 412, "role": "active",
            "worker": "http://127.0.0.1:6066", "guarantee": "proven", "unseen": [],
        },
    }  # fmt: skip
    store = Rdict(str(folder), Options(raw_mode=True))
    for first in range(0, users, BATCH):
        batch = WriteBatch(raw_mode=True)
        for number in range(first, min(first + BATCH, users)):
            name = user_id(number)
            batch.put(name.encode(), json.dumps({**answer, "user_id": name}).encode())
        store.write(batch)
    store.close()


def serve(port: int, folder: Path) -> None:
    """Serve until the process is killed."""
    store = Rdict(str(folder), Options(raw_mode=True), access_type=AccessType.read_only())

    async def purchases(request: web.Request) -> web.Response:
        body = store.get(request.match_info["user_id"].encode())
        return web.Response(body=body, content_type="application/json")

    application = web.Application()
    application.router.add_get("/v1/users/{user_id}/purchases", purchases)
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    write_answers(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    serve(int(sys.argv[1]), Path(sys.argv[2]))
