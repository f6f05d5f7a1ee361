"""JSON structures of every server; those of the routes are in web.schemas."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0)]


class ProblemLocation(Struct):
    """An error and its location: a parameter, or a field of the body (RFC 6901)."""

    message: str
    parameter: str | UnsetType = UNSET
    pointer: str | UnsetType = UNSET


class RecoveryState(Struct):
    """Progress of the recovery of the tables: changelog records read, and their total."""

    done: Count
    total: Count
    records_per_second: Annotated[float, Meta(ge=0)]
    seconds: Annotated[float, Meta(ge=0)]
    rebuilding: str


class AssignedPartitions(Struct):
    """The partitions of one table on a worker; `warming` are standbys that become active."""

    active: list[int]
    standby: list[int]
    warming: list[int]


class ProblemDetails(Struct):
    """Every error (RFC 9457).

    `code` is for programs, `detail` for people, `instance` is the request's id.

    `reasons` has the codes of all problems of the worker; `code` is the first of them.
    """

    type: Annotated[str, Meta(pattern="^urn:lately:problem:")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    instance: str
    code: str
    errors: list[ProblemLocation] | UnsetType = UNSET
    retry_after_ms: Count | UnsetType = UNSET
    reasons: list[str] | UnsetType = UNSET
    recovery: RecoveryState | UnsetType = UNSET
    partitions: dict[str, AssignedPartitions] | UnsetType = UNSET
    source_problems: list[str] | UnsetType = UNSET
