"""A role that may write a captured table, or owns one, cannot forge, hide or double a change, and makes
no other statement fail."""

import contextlib

import psycopg
import pytest

from support.trapped_database import harbour, run_as


OUTBOXES = ["outbox_treasure", "outbox_plain", "outbox_by_row", "outbox_tree", "outbox_crown"]


@pytest.mark.parametrize("role", ["app", "eve", "mallory", "publisher", "relay_daemon"])
def test_no_role_of_users_writes_or_locks_an_outbox(harbour, role):
    allowed = []
    with harbour.connect(user=role) as connection:
        for outbox in OUTBOXES:
            attempts = [f"insert into pgtrickle.{outbox} (id, payload) values (4711, '{{}}')",
                        f"insert into pgtrickle.{outbox} (payload) values ('{{}}')",
                        f"insert into pgtrickle.{outbox} (pgt_id, payload) "
                        "values (gen_random_uuid(), '{}')",
                        f"update pgtrickle.{outbox} set payload = '{{}}'",
                        f"delete from pgtrickle.{outbox}", f"truncate pgtrickle.{outbox}",
                        f"select setval('pgtrickle.{outbox}_id_seq', 1)",
                        f"select nextval('pgtrickle.{outbox}_id_seq')",
                        f"select id from pgtrickle.{outbox} for key share",
                        f"drop table pgtrickle.{outbox} cascade",
                        f"create trigger t after insert on pgtrickle.{outbox} for each row "
                        "execute function attack.row_trigger('x')",
                        f"create table app.child () inherits (pgtrickle.{outbox})",
                        f"create table app.reference (id bigint references pgtrickle.{outbox})",
                        f"create rule r as on insert to pgtrickle.{outbox} do nothing",
                        f"comment on table pgtrickle.{outbox} is 'x'"]
            attempts += [f"lock table pgtrickle.{outbox} in {mode} mode" for mode in (
                "row share", "row exclusive", "share update exclusive", "share",
                "share row exclusive", "exclusive", "access exclusive")]
            for attempt in attempts:
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                    with connection.transaction(force_rollback=True):
                        connection.execute(attempt)
                        allowed.append(attempt)
    assert allowed == []


ALL_TRIGGERS = """
select p.oid::regproc::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname like 'pgtrickle%' and p.prorettype = 'trigger'::regtype
"""


@pytest.mark.parametrize("role", ["app", "eve", "mallory"])
def test_no_trigger_function_of_an_outbox_serves_another_table(harbour, role):
    """Attached to a table of the attacker's, it writes into no outbox."""
    def counts():
        return {o: harbour.one(f"select count(*) from pgtrickle.{o}") for o in OUTBOXES}

    schema = "app" if role == "app" else "public"
    harbour.execute(f"drop table if exists {schema}.mine")
    run_as(harbour, role, f"create table {schema}.mine (id int, n int)")
    before, wrote = counts(), set()
    with harbour.connect(user=role) as connection:
        for (function,) in harbour.execute(ALL_TRIGGERS):
            for timing in ("after insert on {} for each row",
                           "after insert on {} referencing new table as new_rows for each statement",
                           "before truncate on {}", "after truncate on {}"):
                for argument in ("whole", "part"):
                    with contextlib.suppress(psycopg.Error):
                        with connection.transaction():
                            connection.execute(f"create trigger evil {timing.format(schema + '.mine')}"
                                               f" execute function {function}('{argument}')")
                            connection.execute(f"insert into {schema}.mine values (4711, 1)")
                            connection.execute(f"truncate {schema}.mine")
                    connection.execute(f"drop trigger if exists evil on {schema}.mine")
                    if counts() != before:
                        wrote.add(function)
                        before = counts()
    assert wrote == set()


FORGERIES = ["junk", "9;", "1;9;", "99999999999999;", "-1;", "yes", "1", "[]", "null", "\\",
             '{"2": ["x"]}', "{}|junk", "{}|99999999999999", "|", "{}|2|2|2",
             '{"99999999999": ["00000000-0000-0000-0000-000000000001", 1]}',
             '{"2": ["00000000-0000-0000-0000-000000000001", "1"], "3": [null, null]}|2']
WRITES = ["insert into others values (40)", "insert into plain values (1, 1)",
          "insert into plain values (2, 1), (3, 1)",
          "update plain set n = 2", "insert into by_row values (1, 1), (2, 2)",
          "update by_row set n = 2", "insert into tree values (1, 1), (101, 1), (201, 1)",
          "insert into tree_1 values (2, 1)", "insert into tree_2 values (202, 1)",
          "insert into tree_eve values (102, 1)", "update tree set n = 2",
          "update tree_2 set n = 3", "insert into others values (50)", "delete from tree_1",
          "truncate tree_eve", "truncate tree_1", "delete from by_row", "truncate plain"]


def outcome(connection, prepare=()):
    """What the writes leave in the outboxes, all taken back again; and which statements failed."""
    failed = []
    with connection.transaction(force_rollback=True):
        for statement, values in prepare:
            connection.execute(statement, values)
        connection.execute("set local session authorization app")
        for statement in WRITES:
            try:
                with connection.transaction():
                    connection.execute(statement)
            except psycopg.Error as error:
                failed.append(f"{statement}: {error.diag.message_primary}")
        connection.execute("reset session authorization")
        rows = [sorted((*row, *(str(sorted(map(str, payload.get(part, []))))
                                for part in ("inserted", "deleted")))
                 for *row, payload in connection.execute(
                     "select tg_op, inserted_count, deleted_count, is_claim_check, payload "
                     f"from pgtrickle.{outbox} where created_at >= transaction_timestamp() "
                     "order by id").fetchall())
                for outbox in ("outbox_plain", "outbox_by_row", "outbox_tree")]
    return failed, rows


# Every setting that our functions read or write: the known names, and those in their sources.
SETTINGS = """
select 'pgtrickle_capture.' || k || outbox_number as name
from pgtrickle.pgt_outbox_config c, unnest(array['s', 'p', 't']) k
where c.kind = 'table'
union select 'pgtrickle.refreshing'
union
select lower(m[1]) from pg_proc p, regexp_matches(
  p.prosrc, '(pgtrickle[a-z_]*\\.[a-z_]+[0-9]*)''', 'g') m
where p.pronamespace = 'pgtrickle_internal'::regnamespace and p.proname ~ '^capture_[0-9]+_'
"""


def forged_settings(db):
    """[({settings of one kind}, a forged value)]."""
    kinds = {}
    for (name,) in db.execute(SETTINGS):
        kinds.setdefault(name.rstrip("0123456789"), []).append(name)
    return [(kind, names, value) for kind, names in sorted(kinds.items()) for value in FORGERIES]


def test_no_setting_forged_before_hides_or_doubles_a_change_or_makes_a_statement_fail(harbour):
    """As an earlier user of a pooled session may have left it, or the owner of the database."""
    wrong = []
    with harbour.connect() as connection:
        honest = outcome(connection)
        assert honest[0] == [] and all(honest[1])
        for kind, names, value in forged_settings(harbour):
            failed, rows = outcome(connection, [("select set_config(%s, %s, false)", (name, value))
                                                for name in names])
            wrong += [f"{kind} = {value}: {error}" for error in failed]
            if not failed:
                wrong += [f"{kind} = {value}: {set(ours) ^ set(theirs)}"
                          for ours, theirs in zip(honest[1], rows) if ours != theirs]
    assert not wrong, "\n".join(wrong)


def test_no_setting_forged_in_a_statement_hides_another_change(harbour):
    """A function that the statement calls forges the settings after our BEFORE trigger has run."""
    harbour.execute("""
        create or replace function app.forge(value text, names text[]) returns int
        language plpgsql as $$
        declare n text;
        begin
          foreach n in array names loop perform set_config(n, value, true); end loop;
          return 0;
        end $$;
        grant execute on function app.forge to public; grant usage on schema app to public""")
    wrong = []
    with harbour.connect() as connection:
        for kind, names, value in forged_settings(harbour):
            with connection.transaction(force_rollback=True):
                connection.execute("set local session authorization app")
                for table in ("tree", "plain", "by_row"):
                    with contextlib.suppress(psycopg.Error), connection.transaction():
                        connection.execute(f"insert into {table} select 207 + app.forge(%s, %s), 1",
                                           (value, names))
                # What follows is honest.
                connection.execute("reset session authorization")
                for table, statement in (("tree", "insert into tree_2 values (250, 1)"),
                                         ("tree", "insert into tree_eve values (150, 1)"),
                                         ("tree", "truncate tree_eve"),
                                         ("plain", "insert into others values (51)"),
                                         ("plain", "truncate plain")):
                    # What cannot be recorded is noted, for upkeep to heal.
                    count = (f"select (select count(*) from pgtrickle.outbox_{table}), "
                             "(select count(*) from pgtrickle_internal.outbox_misses)")
                    before = connection.execute(count).fetchone()
                    try:
                        with connection.transaction():
                            connection.execute(statement)
                        if connection.execute(count).fetchone() == before:
                            wrong.append(f"{kind} = {value} hides {statement}")
                    except psycopg.Error as error:
                        wrong.append(f"{kind} = {value}, {statement}: {error}"[:150])
    assert not wrong, "\n".join(wrong)
