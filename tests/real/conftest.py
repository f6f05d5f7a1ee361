"""A shop on real servers, and its settings."""

from __future__ import annotations

import pytest

from app.settings import Settings
from tests.kit.stack import Stack


@pytest.fixture
def settings(stack: Stack) -> Settings:
    return Settings.from_env(stack.env)


@pytest.fixture
def shop(stack: Stack) -> Stack:
    """A shop that is set up."""
    stack.create_orders()
    stack.setup()
    return stack
