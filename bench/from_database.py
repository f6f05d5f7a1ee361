"""The alternative without Lately: an aiohttp service that queries the database for each request.

It uses an indexed query and persistent connections in threads, because the connector is
synchronous. Run it as a process: `python -m bench.from_database PORT DATABASE_PORT DATABASE
pure|c`.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from concurrent.futures import ThreadPoolExecutor

import mysql.connector
from aiohttp import web

CONNECTIONS = 8
QUERY = (
    "SELECT order_id, product_name, price, ordered_at, payment_method, category FROM orders"
    " WHERE user_id = %s ORDER BY ordered_at DESC, order_id DESC LIMIT 20"
)


def serve(port: int, database_port: int, database: str, pure: bool) -> None:
    """Serve until the process is killed."""
    pool: queue.Queue[mysql.connector.MySQLConnection] = queue.Queue()
    for _ in range(CONNECTIONS):
        connection = mysql.connector.connect(
            host="127.0.0.1", port=database_port, user="root", database=database, charset="utf8mb4",
            collation="utf8mb4_general_ci", use_pure=pure, autocommit=True,
        )  # fmt: skip
        pool.put(connection)
    threads = ThreadPoolExecutor(CONNECTIONS)

    def query(user: str) -> list[tuple]:
        connection = pool.get()
        try:
            cursor = connection.cursor()
            cursor.execute(QUERY, (user,))
            return cursor.fetchall()
        finally:
            pool.put(connection)

    async def purchases(request: web.Request) -> web.Response:
        user = request.match_info["user_id"]
        rows = await asyncio.get_running_loop().run_in_executor(threads, query, user)
        purchase_rows = [
            {
                "order_id": row[0], "product_name": row[1], "price": str(row[2]),
                "ordered_at": f"{row[3].isoformat(timespec='microseconds')}Z", "payment_method": row[4],
                "category": row[5], "position": position,
            }
            for position, row in enumerate(rows, 1)
        ]  # fmt: skip
        return web.Response(
            body=json.dumps({"user_id": user, "purchases": purchase_rows}).encode(), content_type="application/json"
        )

    application = web.Application()
    application.router.add_get("/v1/users/{user_id}/purchases", purchases)
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "pure")
