"""Shared fixtures: see ../e2e/support/fixtures.py."""

from support.fixtures import *  # noqa: F401,F403
