"""Values of a client that a column of the shop cannot contain: no row has them, and MySQL is not to blame."""

from __future__ import annotations

import mysql.connector
from mysql.connector import errorcode

#: Errors of a comparison with characters that the character set of the column lacks.
_ERRORS = {
    errorcode.ER_CANT_AGGREGATE_2COLLATIONS,
    errorcode.ER_CANT_AGGREGATE_3COLLATIONS,
    errorcode.ER_CANT_AGGREGATE_NCOLLATIONS,
    errorcode.ER_TRUNCATED_WRONG_VALUE_FOR_FIELD,
    errorcode.ER_INVALID_CHARACTER_STRING,
    3854,  # ER_CANNOT_CONVERT_STRING of MySQL 8
    3988,  # ER_CONVERSION_IMPOSSIBLE_FOR_PARAMETER of MySQL 8
}


def is_unstorable(exc: mysql.connector.Error, value: str) -> bool:
    """Return whether a comparison with `value` failed because the column cannot contain it.

    Every character set of MySQL contains the characters of ASCII: with such a value the cause is another one.
    """
    return exc.errno in _ERRORS and not value.isascii()
