"""Errors of stored values and events; the message names the cause and the next step."""


class LatelyError(Exception):
    """An error that is shown to a person as one line; `exit_code` is what the process ends with."""

    exit_code = 1


class UnknownFormat(LatelyError):
    """A stored value has a format number that this version of Lately does not know."""


class UnreadableEvent(Exception):
    """An event cannot be read or breaks a rule; `reason` is its slug, the text says what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
