"""Shared fixtures: see support/fixtures.py. Hooks of the conformance suite: conformance/suite.py."""

import os

from conformance.suite import (pytest_collection_modifyitems, pytest_configure,  # noqa: F401
                               pytest_runtest_logreport, pytest_terminal_summary)
from support.fixtures import *  # noqa: F401,F403
from support.postgres import server_version

# Standbys synchronise replication slots from PostgreSQL 17 on.
collect_ignore = [] if server_version() >= 17 else ["test_stream_source_failover.py"]
if "CONFORMANCE_MODULE" not in os.environ:  # it builds a program: a part of scripts/test --example
    collect_ignore.append("test_option_added.py")
