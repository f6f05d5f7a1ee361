"""Errors with an exit code; each message names the cause and the next step."""

from domain.errors import LatelyError

EX_USAGE = 2
EX_DIFFERENT = 3
EX_UNAVAILABLE = 75


class BadSetting(LatelyError):
    """A LATELY_* variable is unknown or has an invalid value."""

    exit_code = EX_USAGE


class BadTopic(LatelyError):
    """A topic has a configuration that Lately cannot use."""

    exit_code = EX_USAGE


class RecordTooLarge(BadTopic):
    """A topic refuses a single record because of its size; a retry succeeds once the topic accepts it."""


class WrongIdentity(LatelyError):
    """Topics, tables or outbox belong to something else than the settings say."""

    exit_code = EX_USAGE


class WrongGeneration(LatelyError):
    """This generation of the topics is not the active one."""

    exit_code = EX_USAGE


class BadSource(LatelyError):
    """The shop's table, the outbox or its triggers do not fit the event source."""

    exit_code = EX_USAGE


class DatabaseRefused(BadSource):
    """The shop's MySQL server refuses the connection: account, password, TLS or database.

    A command ends. A running source tries again, because the server can be corrected meanwhile.
    """


class UnknownTarget(LatelyError):
    """The target of a command does not exist, or its id is invalid."""

    exit_code = EX_USAGE


class BadDump(LatelyError):
    """A file is not a dump of tables, is damaged, or does not fit this app."""

    exit_code = EX_USAGE


class StillRunning(LatelyError):
    """A process is running that must be stopped first."""

    exit_code = EX_USAGE


class NotDeletedYet(LatelyError):
    """Rows of a user to be erased are still in the shop's database."""

    exit_code = EX_USAGE


class BadReport(LatelyError):
    """A report cannot be created with these options, or cannot be written to its file."""

    exit_code = EX_USAGE


class Refused(LatelyError):
    """Kafka refuses this client, or its certificate is not trusted: a retry does not help."""

    exit_code = EX_USAGE


class PortTaken(LatelyError):
    """Another process listens on the web port."""

    exit_code = EX_USAGE


class FolderInUse(LatelyError):
    """Another process uses the same folder."""

    exit_code = EX_USAGE


class BadFolder(LatelyError):
    """A worker cannot write to the folder of its tables; a retry may succeed."""


class ServerAway(LatelyError):
    """Kafka, MySQL or another server cannot be reached; a retry may succeed."""

    exit_code = EX_UNAVAILABLE


class KafkaAway(ServerAway):
    """Kafka cannot be reached."""


class DatabaseAway(ServerAway):
    """The shop's MySQL server cannot be reached."""


class WrongLibrary(LatelyError):
    """An installed library has a version that Lately was not tested with."""

    exit_code = EX_USAGE


class BadToken(Exception):
    """A token has a wrong signature, has expired, or names neither a user nor an operator."""
