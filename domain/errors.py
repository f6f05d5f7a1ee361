"""Errors of stored values and events. Each message contains the cause and the next step."""


class LatelyError(Exception):
    """An error that a command prints as one line; `exit_code` is the exit code of the process."""

    exit_code = 1


class UnknownFormat(LatelyError):
    """A stored value has a format number that this version of Lately cannot read."""


class Undecodable(UnknownFormat):
    """A stored value cannot be decoded at all."""


class UnreadableEvent(Exception):
    """An event cannot be read or breaks a rule; `reason` is a short code, the text the details."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
