"""Code and expressions of users never run with rights of ours, and none of ours is theirs to use.

Attackers plant code wherever they may, honest users do their work, and planted code must have run
as no role but its planter. support/attacks.py has the cast, what is planted, and the checker.
"""

import contextlib

import psycopg
import pytest

from support.attacks import Watch, watching
from support.trapped_database import CALLS, functions, town

# What is in this schema reads the catalog and its arguments with its caller's rights: every role
# may call it.
PURE = "pgtrickle_json"


def test_the_trap_springs(town):
    with town.connect(user="boss") as connection:
        connection.execute("set search_path = trap, pg_catalog")
        for expression in ("1 = 1", "'a'::text", "current_setting('role')", "format('%s', 1)",
                           "'a' || 'b'", "count(*) from pg_class", "1 in (1)", "'1'::regclass",
                           "pg_trigger_depth()"):
            with watching_escalations(town) as found:
                with contextlib.suppress(psycopg.Error):
                    connection.execute("select " + expression.replace("%", "%%"))
            assert found or "count" in expression, expression


@contextlib.contextmanager
def watching_escalations(db):
    """Collects what ran as another role than its planter."""
    watch, found = Watch(db), []
    yield found
    found.extend(watch.escalations("mallory"))


def test_each_function_that_users_call_is_classified_and_its_call_does_something(town, functions):
    public = {function.name for function in functions if function.public}
    assert public <= CALLS.keys(), f"not classified: {sorted(public - CALLS.keys())}"
    with town.connect(user="boss") as connection:
        failed = {f.signature: f.call(connection) for f in functions if f.public}
    assert {name: state for name, state in failed.items() if state != "00000"} == {}


# Where mallory gets her code in: a schema before pg_catalog, and one behind it whose functions
# match better than those with "any" or with implicit casts.
PATHS = ["trap, pg_catalog, pgtrickle", "pg_catalog, trap"]


@pytest.mark.parametrize("role", ["boss", "clerk", "relay_daemon", "publisher", "app"])
def test_no_function_looks_names_up_by_its_callers_path(town, functions, role):
    differs = []
    with watching(town), town.connect(user=role) as connection:
        connection.execute("set statement_timeout = '5s'")
        usual = [f.call(connection) for f in functions]
        for path in PATHS:
            connection.execute(f"set search_path = {path}")
            differs += [f"{f.signature} ended in {state}, not {before}, under {path}"
                        for f, before, state in zip(functions, usual,
                                                    [f.call(connection) for f in functions])
                        if state != before]
    assert not differs, "\n".join(differs)


def test_a_login_without_rights_calls_no_function_of_ours(town, functions):
    with town.connect(user="app") as connection:
        called = {f.signature: f.call(connection) for f in functions if f.schema != PURE}
    assert {name: state for name, state in called.items() if state != "42501"} == {}
    assert town.execute("""
        select p.oid::regprocedure::text from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = %s and p.prosecdef""", (PURE,)) == []
