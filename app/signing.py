"""Signatures of what the processes of one app tell each other through Kafka.

Whoever may write to the topics, or join the consumer group, can write state records and worker
addresses. A signature (HMAC with SHA-256, RFC 2104) shows which of them a process of this app has
written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from app.settings import Settings

#: 128 bits, half of the hash: the least that RFC 2104 allows. Each assignment of a group contains the
#: signatures of all workers.
SIGNATURE_CHARS = 32
#: Separates these keys from other uses of LATELY_TOKEN_SECRET.
_DERIVATION = b"lately signing key"


class Signer:
    """Signs with the newest of some keys, and accepts the signatures of all of them.

    Without keys a signature is empty, and every signature is valid.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = tuple(keys)

    @property
    def has_keys(self) -> bool:
        """Whether signatures are checked."""
        return bool(self._keys)

    def sign(self, purpose: str, *parts: bytes) -> str:
        """Return the signature of `parts`; one for another purpose differs."""
        return _hmac(self._keys[0], purpose, parts) if self._keys else ""

    def is_valid(self, signature: str, purpose: str, *parts: bytes) -> bool:
        """Return whether one of the keys has signed `parts`."""
        if not self._keys:
            return True
        given = signature.encode()
        return any([hmac.compare_digest(given, _hmac(key, purpose, parts).encode()) for key in self._keys])

    def is_newest(self, signature: str, purpose: str, *parts: bytes) -> bool:
        """Return whether `sign` would return this signature."""
        return hmac.compare_digest(signature.encode(), self.sign(purpose, *parts).encode())


def state_signer(settings: Settings) -> Signer:
    """Return the signer of state records: with the keys of LATELY_SIGNING_KEY."""
    return Signer(_signing_keys(settings))


def address_signer(settings: Settings) -> Signer:
    """Return the signer of worker addresses: as `state_signer`, or else with keys from LATELY_TOKEN_SECRET.

    All workers have that secret; a source may lack it.
    """
    keys = _signing_keys(settings)
    if not keys and settings.token_secret:
        keys = [hmac.digest(secret.encode(), _DERIVATION, "sha256") for secret in settings.token_secrets]
    return Signer(keys)


class WorkerAddresses:
    """Signs the address of a worker for the other workers of its app, and checks those of others."""

    def __init__(self, settings: Settings) -> None:
        self._signer, self._app = address_signer(settings), settings.group.encode()

    def sign(self, url: str) -> str:
        """Return the signature of the address."""
        return self._signer.sign("address", self._app, url.encode())

    def is_trusted(self, url: str, signature: str) -> bool:
        """Return whether a worker of this app has signed the address."""
        return self._signer.is_valid(signature, "address", self._app, url.encode())


def _signing_keys(settings: Settings) -> list[bytes]:
    return [key.encode() for key in (settings.signing_key, settings.signing_key_previous) if key]


def _hmac(key: bytes, purpose: str, parts: Iterable[bytes]) -> str:
    """Return the signature; each part is preceded by its length, so that no two lists of parts are equal."""
    code = hmac.new(key, digestmod=hashlib.sha256)
    for part in (purpose.encode(), *parts):
        code.update(b"%d:" % len(part))
        code.update(part)
    return code.hexdigest()[:SIGNATURE_CHARS]
