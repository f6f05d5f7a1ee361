"""How much hypothesis tries, and certificates."""

import pytest
from hypothesis import settings

from tests.kit.depth import examples
from tests.kit.secured import Authority

settings.register_profile("unit", examples(150))
settings.load_profile("unit")


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an authority, of a certificate that it signed, and of its key."""
    authority = Authority(tmp_path_factory.mktemp("pems"))
    mine = authority.issue("mine")
    return {"ca": str(authority.ca), "cert": str(mine.cert), "key": str(mine.key)}
