"""The connector's connection, with exactly the given TLS context, and no password in clear text."""

from __future__ import annotations

import ssl
from typing import Any

import mysql.connector
from mysql.connector.authentication import MySQLAuthenticator
from mysql.connector.connection import MySQLConnection
from mysql.connector.constants import ClientFlag, ServerCmd
from mysql.connector.errorcode import CR_SSL_CONNECTION_ERROR
from mysql.connector.network import MySQLTCPSocket

from app.errors import WrongLibrary

#: Authentication plugins that send the password itself.
_CLEAR_TEXT_PLUGINS = {"mysql_clear_password", "sha256_password"}


class ClearTextRefused(mysql.connector.InterfaceError):
    """The server asks for the password itself on a connection without TLS; it was not sent."""


class SecureConnection(MySQLConnection):
    """A connection with the TLS context `context`, or without TLS if it is None.

    The connector itself continues without TLS when the server has none, loads the system's
    certificate authorities for each connection, trusts them in addition to the given ones, and
    sends passwords in clear text where caching_sha2_password asks for it. Raises
    mysql.connector.Error, with CR_SSL_CONNECTION_ERROR if `requires_tls` and the server has none.
    """

    def __init__(self, context: ssl.SSLContext | None, requires_tls: bool, **options: Any) -> None:
        self._context, self._requires_tls = context, requires_tls
        super().__init__()
        self._authenticator = _Authenticator()
        try:
            self.connect(**options, ssl_disabled=context is None)
        except BaseException:
            self.close()
            raise

    def reset_to(self, statements: str) -> None:
        """Reset the session and execute statements, separated by semicolons, that return no rows.

        The server rolls back, frees locks and temporary tables, and forgets the variables of the
        session. `cmd_reset_connection` of the connector sends three more statements. Raises
        mysql.connector.Error.
        """
        self._handle_ok(self._send_cmd(ServerCmd.RESET_CONNECTION))
        for _ in self.cmd_query_iter(statements):
            pass

    def _do_handshake(self) -> None:
        super()._do_handshake()
        # At this point the client has sent nothing yet.
        has_tls = bool(self._client_flags & ClientFlag.SSL)
        if self._requires_tls and not has_tls:
            raise mysql.connector.InterfaceError("the server has none", errno=CR_SSL_CONNECTION_ERROR)
        plugin = (self._handshake or {}).get("auth_plugin")
        if plugin in _CLEAR_TEXT_PLUGINS and not has_tls:
            raise ClearTextRefused(f"the server asks for {plugin}")

    def _get_connection(self) -> MySQLTCPSocket:
        socket = _Socket(self._context, self._password, self.server_host, self.server_port, self._force_ipv6)
        socket.set_connection_timeout(self._connection_timeout)
        return socket

    def _open_connection(self) -> None:
        super()._open_connection()
        socket = self._socket
        has_tls = bool(self._client_flags & ClientFlag.SSL)
        used = getattr(socket.sock, "context", None) if isinstance(socket, _Socket) else None
        if not isinstance(socket, _Socket) or (used is not self._context if has_tls else used is not None):
            raise WrongLibrary("mysql-connector-python ignores Lately's TLS settings: install an earlier version of it")
        socket.is_authenticated = True


class _Authenticator(MySQLAuthenticator):
    """Refuses, without TLS, a change to a plugin that sends the password itself."""

    def _switch_auth_strategy(self, new_strategy_name: str, *args: Any, **options: Any) -> None:
        if new_strategy_name in _CLEAR_TEXT_PLUGINS and not self.ssl_enabled:
            raise ClearTextRefused(f"the server asks for {new_strategy_name}")
        super()._switch_auth_strategy(new_strategy_name, *args, **options)


class _Socket(MySQLTCPSocket):
    """A socket that uses the given TLS context, and sends no packet with the password without TLS."""

    def __init__(self, context: ssl.SSLContext | None, password: str, host: str, port: int, force_ipv6: bool) -> None:
        super().__init__(host, port, force_ipv6)
        self._context, self._password = context, password.encode()
        self.is_authenticated = False

    def build_ssl_context(self, *_args: Any, **_options: Any) -> ssl.SSLContext | None:
        return self._context

    def send(self, payload: bytes, *args: Any, **options: Any) -> None:
        if not self.is_authenticated and self._password and not isinstance(self.sock, ssl.SSLSocket):
            # The packet of caching_sha2_password; the other packets contain a hash of it.
            if bytes(payload).rstrip(b"\0") == self._password:
                raise ClearTextRefused("the server asks for the password")
        super().send(payload, *args, **options)
