"""Shared fixtures: see support/fixtures.py."""

from support.fixtures import *  # noqa: F401,F403
