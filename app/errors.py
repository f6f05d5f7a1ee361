"""Named errors: the message names the cause and the next step."""

from domain.errors import LatelyError

EX_USAGE = 2
EX_DIFFERENT = 3
EX_UNAVAILABLE = 75


class BadSetting(LatelyError):
    """A LATELY_* variable is unknown or has a value that cannot be used."""

    exit_code = EX_USAGE


class BadTopic(LatelyError):
    """A topic exists, but not as Lately needs it."""

    exit_code = EX_USAGE


class WrongGeneration(LatelyError):
    """This generation of the topics is not the one that counts, or not yet."""

    exit_code = EX_USAGE


class BadSource(LatelyError):
    """The shop's table, the outbox or its triggers are not as the event source needs them."""

    exit_code = EX_USAGE


class Unknown(LatelyError):
    """What a command was asked about does not exist."""

    exit_code = EX_USAGE


class BadDump(LatelyError):
    """A file is no dump of tables, is damaged, or does not fit this app."""

    exit_code = EX_USAGE


class StillRunning(LatelyError):
    """A worker runs that has to be stopped first."""

    exit_code = EX_USAGE


class StillThere(LatelyError):
    """What is to be erased is still in the shop's database."""

    exit_code = EX_USAGE


class BadReport(LatelyError):
    """A report cannot be made as it was asked for, or not be written where it should be."""

    exit_code = EX_USAGE


class Refused(LatelyError):
    """Kafka does not let us in, or shows a certificate that is not trusted: waiting does not help."""

    exit_code = EX_USAGE


class PortTaken(LatelyError):
    """Another process listens on the web port."""

    exit_code = EX_USAGE


class FolderInUse(LatelyError):
    """Another process uses the same folder."""

    exit_code = EX_USAGE


class BadFolder(LatelyError):
    """A worker cannot write to the folder for its tables; it may be tried again."""


class ServerAway(LatelyError):
    """Kafka, MySQL or another server cannot be reached; trying again later may help."""

    exit_code = EX_UNAVAILABLE


class KafkaAway(ServerAway):
    """Kafka cannot be reached."""


class DatabaseAway(ServerAway):
    """The shop's MySQL server cannot be reached."""


class WrongLibrary(LatelyError):
    """An installed library is not the version that this one was tested with."""

    exit_code = EX_USAGE


class BadToken(Exception):
    """A token that nobody signed with this secret, that has expired, or that names nobody."""
