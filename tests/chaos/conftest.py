"""Shared fixtures: see ../e2e/support/fixtures.py."""

from conformance.suite import pytest_configure  # noqa: F401
from support.fixtures import *  # noqa: F401,F403
