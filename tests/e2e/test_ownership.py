"""Ownership by leases, by a probe: of the relay's names, and of another schema's."""

import os
import re
import subprocess

import pytest

from support.postgres import REPOSITORY
from support.processes import Process
from support.relay import relay_binary
from support.waiting import eventually, holds_for

SCHEMAS = {"relay": ("pgtrickle.relay_", "pgtrickle_relay_config"),
           "stream": ("pgstream._", "pgstream_news")}
LEASE_TIMEOUT_MS = 2000


def install_in_another_schema(db):
    """The tables and functions of the relay's leases once more, under other names."""
    db.execute("create schema pgstream")
    for table in ("lease_sessions", "leases", "instances"):
        db.execute(f"create unlogged table pgstream._{table}"
                   f" (like pgtrickle.relay_{table} including all)")
    path = os.path.join(REPOSITORY, "sql", "functions", "115_relay_leases.sql")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    prefix, channel = SCHEMAS["stream"]
    text = text.replace("pgtrickle.relay_", prefix).replace("pgtrickle_internal.", "pgstream.")
    text = text.replace("pgtrickle_relay_config", channel)
    db.execute(re.sub(r"\brelay_(\w+_leases)\b", r"_\1", text))


@pytest.fixture(params=SCHEMAS)
def names(db, request):
    # Both sides know this kind of lease.
    db.execute("alter table pgtrickle.relay_leases drop constraint relay_leases_kind_check")
    install_in_another_schema(db)
    return SCHEMAS[request.param]


class Member:
    """A running probe, and what it has printed."""

    def __init__(self, db, names, worker, directory):
        self._path = os.path.join(directory, worker)
        binary = os.path.join(os.path.dirname(relay_binary()), "ownership_probe")
        read_end, self._input = os.pipe()
        os.set_inheritable(read_end, True)
        with open(self._path, "w", encoding="utf-8") as output:
            self.process = Process([binary, db.dsn, *names, worker, str(LEASE_TIMEOUT_MS)],
                                   stdin=read_end, stdout=output, stderr=subprocess.DEVNULL)
        os.close(read_end)
        eventually(lambda: "joined" in self.said())

    def said(self):
        with open(self._path, encoding="utf-8") as output:
            return output.read().split()

    def leave(self):
        if self._input is not None:
            os.close(self._input)
            self._input = None


@pytest.fixture
def join(db, names, tmp_path):
    members = []

    def start(worker):
        members.append(Member(db, names, worker, tmp_path))
        return members[-1]

    yield start
    for member in members:
        member.leave()
        member.process.kill9()


def wait_owned(member):
    eventually(lambda: "owned" in member.said(), 20)


def test_a_standby_owns_when_the_owner_gives_up(join):
    owner = join("a")
    wait_owned(owner)
    standby = join("b")
    holds_for(lambda: "owned" not in standby.said(), 1)
    owner.leave()
    wait_owned(standby)
    assert "lost" not in owner.said()


def test_a_standby_owns_at_once_when_the_owner_is_killed(join):
    owner = join("a")
    wait_owned(owner)
    standby = join("b")
    owner.process.kill9()
    wait_owned(standby)


def test_an_owner_that_was_frozen_learns_that_it_lost(join):
    owner = join("a")
    wait_owned(owner)
    standby = join("b")
    owner.process.freeze()
    wait_owned(standby)
    owner.process.thaw()
    eventually(lambda: "lost" in owner.said(), 20)
    assert owner.said().count("owned") == 1
