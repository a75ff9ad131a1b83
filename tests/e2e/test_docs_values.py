"""The values and arguments that the documentation names are those that the SQL functions take."""

import pathlib
import re

import psycopg
import pytest

from support.postgres import REPOSITORY

DOCS = pathlib.Path(REPOSITORY) / "docs"
PAGES = [*DOCS.rglob("*.md"), pathlib.Path(REPOSITORY) / "README.md"]


def prose(page):
    """A page without what is generated from the functions themselves."""
    return re.sub(r"\| `[\w.]+\([^`]*\)` \| (caller|owner|creator|the ).*", "", page.read_text())


def signatures(db):
    """name -> the lists of argument names of the functions of that name."""
    found = {}
    for name, arguments in db.execute(
            "select p.proname, coalesce(p.proargnames[1:p.pronargs], '{}') from pg_proc p "
            "where p.pronamespace = 'pgtrickle'::regnamespace"):
        found.setdefault(name, []).append(arguments)
    return found


def test_functions_have_the_arguments_that_are_documented(db):
    known, seen = signatures(db), 0
    for page in PAGES:
        text = prose(page)
        # As a table shows them: `name(argument, argument 'default', ...)`.
        for name, listed in re.findall(r"`([a-z_]+)\(((?:[a-z_]+(?: [^,)`=>]*)?(?:, )?)+)\)`", text):
            if name in known:
                seen += 1
                arguments = [part.split()[0] for part in listed.split(", ")]
                assert arguments in known[name], f"{page.name}: {name}({listed})"
        # As a call names them: name(..., argument => value).
        for name, listed in re.findall(r"pgtrickle\.([a-z_]+)\(((?:[^()]|\([^()]*\))*?)\)", text):
            for argument in re.findall(r"(\w+) =>", re.sub(r"\$\$.*?\$\$", "", listed, flags=re.DOTALL)):
                seen += 1
                assert name in known, f"{page.name}: there is no function {name}"
                assert any(argument in names for names in known[name]), \
                    f"{page.name}: {name} has no argument {argument}"
    assert seen > 30


def test_schedules_are_those_that_are_documented(db):
    sentence = re.search(r"`schedule` is (.*?)A running relay", (DOCS / "stream-tables.md").read_text(),
                         re.DOTALL)[1]
    schedules = re.findall(r"`'([^']+)'`", sentence)
    assert {"500ms", "1h30m", "manual", "*/5 8-18 * * mon-fri"} <= set(schedules)
    db.execute("create table t (id int primary key)")
    for number, schedule in enumerate([*schedules, None, " MANUAL "]):
        by_hand = schedule is None or schedule.strip().lower() == "manual"
        stored = None if by_hand else schedule
        for function in ("create", "alter"):
            name = f"{function}_{number}"
            db.execute("select pgtrickle.create_stream_table(%s, 'select id from t', %s)",
                       (name, schedule if function == "create" else "7s"))
            if function == "alter":
                db.execute("select pgtrickle.alter_stream_table(%s, schedule => %s)",
                           (name, schedule or "manual"))
            assert db.execute("select schedule, period is null, next_due_at is null "
                              "from pgtrickle.pgt_stream_tables where pgt_name = %s", (name,)) == [
                (stored, by_hand, by_hand)], (function, schedule)
    db.execute("select pgtrickle.create_inbox('i', schedule => 'manual')")
    for schedule in ("", "by hand", "1", "s", "0ms", "367d", "* * * *", "@hourly", "1 s 2"):
        for statement in ("select pgtrickle.create_stream_table('no', 'select id from t', %s)",
                          "select pgtrickle.alter_stream_table('create_0', schedule => %s)"):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                db.execute(statement, (schedule,))


def test_modes_captures_and_retention_are_those_that_are_documented(db):
    page = (DOCS / "stream-tables.md").read_text()
    modes = re.findall(r"`([A-Z]+)`", re.search(r"`DIFFERENTIAL` and `AUTO`.*?`IMMEDIATE`", page,
                                                re.DOTALL)[0])
    assert set(modes) == {"DIFFERENTIAL", "AUTO", "FULL", "IMMEDIATE"}
    db.execute("create table t (id int primary key, other int)")
    for mode in set(modes) - {"IMMEDIATE"}:
        db.execute("select pgtrickle.create_stream_table(%s, 'select id from t', 'manual', %s)",
                   (f"m_{mode}", mode))
        db.execute("select pgtrickle.alter_stream_table(%s, refresh_mode => %s)", (f"m_{mode}", mode))
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        db.execute("select pgtrickle.create_stream_table('i', 'select id from t', '1s', 'IMMEDIATE')")

    rows = dict(re.findall(r"^\| `(\w+)`(?:, `\w+`)? \| ([^|]+) \|", (DOCS / "outboxes.md").read_text(),
                           re.MULTILINE))
    captures = re.findall(r"`(auto|statement|row)`", re.search(
        r"^\| `capture`.*$", (DOCS / "outboxes.md").read_text(), re.MULTILINE)[0])
    for number, capture in enumerate(sorted(set(captures))):
        db.execute(f"create table c{number} (id int primary key)")
        db.execute("select pgtrickle.enable_outbox(%s, capture => %s)", (f"c{number}", capture))
        said = db.one("select pgtrickle.outbox_status(%s)", (f"c{number}",))
        assert said["capture"] == ("row" if capture == "row" else "statement")
        assert db.execute("select retention_hours, inline_threshold_rows, inline_threshold_bytes, notify "
                          "from pgtrickle.pgt_outbox_config where stream_table_name = %s",
                          (f"c{number}",)) == [(24, 10000, 1024 * 1024, False)]
    assert rows["retention_hours"] == "24" and rows["capture"] == "`auto`"
    for refused in ("retention_hours => 0", "capture => 'refresh'", "inline_threshold_rows => 0",
                    "key_columns => '{nothing}'"):
        with pytest.raises(psycopg.Error) as error:
            db.execute(f"select pgtrickle.enable_outbox('t', {refused})")
        assert error.value.sqlstate in ("22023", "42703")
    db.execute("select pgtrickle.enable_outbox('t', retention_hours => 1, key_columns => '{other}')")


def statements(text):
    """The SQL that a page shows: blocks of sql, and calls in the middle of a sentence."""
    for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
        block = re.sub(r"--.*", "", block)
        quoted = []
        block = re.sub(r"\$\$.*?\$\$|'[^']*'", lambda m: quoted.append(m[0]) or f"\0{len(quoted) - 1}\0", block,
                       flags=re.DOTALL)
        for statement in block.split(";"):
            yield re.sub("\0(\\d+)\0", lambda m: quoted[int(m[1])], statement).strip()
    # A part of a call is shown with its open parenthesis.
    for shown in re.findall(r"`((?:SELECT|select) (?:\* FROM )?pgtrickle\.[^`]*?[^`(;]);?`", text):
        yield from re.split(r"; (?=SELECT)", shown)


def test_calls_that_are_shown_are_calls_of_what_is_there(db):
    """Prepared, not executed: tables of the examples need not be there, functions and arguments must."""
    seen = 0
    for page in PAGES:
        for statement in statements(prose(page)):
            if not re.match(r"(?i)select\b.*\bpgtrickle\.\w+\(", statement, re.DOTALL) or "..." in statement:
                continue
            seen += 1
            try:
                db.execute("prepare shown as " + statement)
                db.execute("deallocate shown")
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                pass
            except psycopg.Error as error:
                pytest.fail(f"{page.name}: {statement}\n{error}")
    assert seen > 30
