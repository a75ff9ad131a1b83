"""Shared fixtures: see support/fixtures.py. Hooks of the conformance suite: conformance/suite.py."""

from conformance.suite import (pytest_configure, pytest_runtest_logreport,  # noqa: F401
                               pytest_terminal_summary)
from support.fixtures import *  # noqa: F401,F403
