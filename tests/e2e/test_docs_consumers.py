"""The statements and the worker of docs/consumers.md run as they stand."""

import os
import pathlib
import re
import subprocess
import sys

from support.groups import drain, expire, make_group, session
from support.pipelines import SLOW_FACTOR
from support.postgres import PASSWORD, REPOSITORY
from support.waiting import eventually

PAGE = (pathlib.Path(REPOSITORY) / "docs/consumers.md").read_text()


def blocks(language, *sections):
    """The examples in this language of the sections with these headings."""
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        if section.splitlines()[0] in sections:
            found += re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found


def test_the_page_of_consumers_does_what_it_says(db, tmp_path):
    (worker,) = blocks("python", "A group")
    create, in_one_transaction, view = blocks("sql", "A group", "Exactly once", "What is where")
    try:
        db.execute(create)
        db.execute(f"alter role order_worker password '{PASSWORD}'")
        db.execute("select pgtrickle.publish('orders', jsonb_build_object('order', i), key => i::text) "
                   "from generate_series(1, 20) i")
        output = tmp_path / "printed"
        with open(output, "w") as printed:
            process = subprocess.Popen([sys.executable, "-c", worker], stdout=printed, env={
                **os.environ, "DSN": db.server.dsn(db.name, user="order_worker")})
        try:
            eventually(lambda: output.read_text().split() == [str(i) for i in range(1, 21)])
            eventually(lambda: db.one("select bool_and(lag = 0) from pgtrickle.consumers"))
        finally:
            process.kill()
            process.wait()
        with session(db, "order_worker") as connection:
            expire(db, "billing")
            connection.execute("select pgtrickle.seek_offset('billing', 'worker 1', 0)")
            for statement in in_one_transaction.split(";\n"):
                if statement:
                    connection.execute(statement.replace("worker 1', 1)", "worker 1', 20)"))
            assert len(connection.execute(view).fetchall()) == 4
            assert connection.execute("select sum(lag) from pgtrickle.consumers").fetchone() == (0,)
    finally:
        db.drop()
        with db.server.connect() as connection:
            connection.execute("drop role if exists order_worker")


def test_the_page_of_change_feeds_does_what_it_says(db, relay):
    (create,), (read,), (cleanup,) = (
        blocks(f"sql {name}", "Change feeds") for name in ("feed", "read", "cleanup"))
    with relay:
        for statement in create.split(";\n"):
            if statement:
                db.execute(statement)
        found = eventually(lambda: len(rows := db.execute(read)) == 4 and rows, 30 * SLOW_FACTOR)
    assert [row[2] for row in found] == ["I", "I", "U", "D"]
    clean, show = cleanup.strip().split("\n")
    assert db.one(clean) == 0
    [(table, feed, view, _, last, cleaned_to, pipeline)] = db.execute(show)
    assert (table, feed, last, cleaned_to, pipeline) == (
        "order_totals", "pgtrickle_changes.feed_order_totals", 4, 0, "feed:public.order_totals")
    assert db.execute(read.replace("pgtrickle_changes.feed_order_totals", view)) == found
    db.execute(*blocks("sql publish", "Change feeds"))


def test_the_example_of_a_snapshot_keeps_a_copy(db, tmp_path):
    (reader,) = blocks("python", "Snapshot, then changes")
    (create,) = blocks("sql", "Snapshot, then changes")
    try:
        db.execute(create)
        db.execute(f"alter role stock_reader password '{PASSWORD}'")
        db.execute("insert into stock values ('hammer', 3), ('saw', 5)")
        output = tmp_path / "printed"
        with open(output, "w") as printed:
            process = subprocess.Popen([sys.executable, "-c", reader], stdout=printed, env={
                **os.environ, "DSN": db.server.dsn(db.name, user="stock_reader")})
        try:
            eventually(lambda: db.one("select bool_and(holder is not null) from pgtrickle.consumers"))
            db.execute("update stock set amount = 4 where item = 'hammer'")
            db.execute("delete from stock where item = 'saw'")
            eventually(lambda: output.read_text().splitlines()[-1:] == ["[('hammer', 4)]"])
        finally:
            process.kill()
            process.wait()
    finally:
        db.drop()
        with db.server.connect() as connection:
            connection.execute("drop role if exists stock_reader")


def test_the_section_about_publications_runs(db):
    section = PAGE[PAGE.index("## Publications"):]
    for block in re.findall(r"```sql\n(.*?)```", section[:section.index("\n## ", 3)], re.DOTALL):
        if db.server.version >= 15 or "where" not in block:
            db.execute(block)
    assert db.execute("select pubname from pg_publication") == [("pgtrickle_parcels",)]


def test_the_section_about_blue_green_runs(db):
    page = (pathlib.Path(REPOSITORY) / "docs/stream-tables.md").read_text()
    db.execute("create table orders (id int primary key, region text, amount numeric, created_at timestamptz)")
    db.execute("insert into orders values (1, 'europe', 5, now()), (2, 'asia', 0, now())")
    for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL):
        for statement in block.split(";\n"):
            db.execute(statement)
    assert db.execute("select region, largest from revenue_by_region") == [("europe", 5)]
    assert len(db.execute("table pgtrickle.outbox_revenue_by_region")) == 1


def test_the_page_of_consumers_waits_for_what_was_written_and_sends_alerts(db):
    (waiting,) = blocks("sql", "Read your writes")
    (alerts,) = blocks("sql", "Alerts")
    db.execute("select pgtrickle.create_outbox('orders')")
    make_group(db, "billing", "orders")
    publish_, wait = [statement for statement in waiting.split(";\n") if statement]
    assert db.one(publish_) == 1
    assert db.one(wait.replace("5 seconds", "0")) is False
    with session(db) as worker:
        drain(worker, group="billing")
    assert db.one(wait) is True
    db.execute(alerts)
    assert db.one("select enabled from pgtrickle.list_relay_configs() where name = 'alerts'")
    assert db.one("select count(*) from pgtrickle.outbox_pg_trickle_alert") == 0
