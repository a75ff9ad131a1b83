"""Shared fixtures: see support/fixtures.py. Hooks of the conformance suite: conformance/suite.py."""

from conformance.suite import (pytest_collection_modifyitems, pytest_configure,  # noqa: F401
                               pytest_runtest_logreport, pytest_terminal_summary)
from support.fixtures import *  # noqa: F401,F403
