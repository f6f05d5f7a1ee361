"""How much hypothesis tries: enough to find, little enough for the folder to run in seconds; and certificates."""

import pytest
from hypothesis import settings

from tests.kit.secured import Authority

# No deadline: on a busy machine one example can take long without meaning anything.
settings.register_profile("unit", deadline=None, max_examples=150)
settings.load_profile("unit")


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an authority, of a certificate that it signed, and of its key."""
    authority = Authority(tmp_path_factory.mktemp("pems"))
    mine = authority.issue("mine")
    return {"ca": str(authority.ca), "cert": str(mine.cert), "key": str(mine.key)}
