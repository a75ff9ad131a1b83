"""The statements and the worker of docs/consumers.md run as they stand."""

import os
import pathlib
import re
import subprocess
import sys

from support.groups import expire, session
from support.postgres import PASSWORD, REPOSITORY
from support.waiting import eventually

PAGE = (pathlib.Path(REPOSITORY) / "docs/consumers.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_of_consumers_does_what_it_says(db, tmp_path):
    (worker,) = blocks("python")
    create, in_one_transaction, view = blocks("sql")
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
