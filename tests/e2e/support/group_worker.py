"""A worker of a consumer group as a process of its own, to be killed: python -m support.group_worker.

It appends a line to its log for each row that it is given (`got`) and for each that it knows to be
committed (`ack`). With a table it does poll, write and commit in one transaction instead.
"""

import sys
import time

import psycopg


def log_rows(log, what, rows):
    moment = time.monotonic_ns()
    for place, row in enumerate(rows):
        log.write(f"{what} {moment} {place} {row[0]} {row[1]} {row[2]} {row[3]}\n")
    log.flush()


def answer(connection, group, name, log):
    rows = connection.execute(
        "select outbox_id, event_key, payload, attempt "
        "from pgtrickle.poll_outbox(%s, %s, 20, 2, 1)", (group, name)).fetchall()
    if rows:
        log_rows(log, "got", rows)
        connection.execute("select pgtrickle.commit_offset(%s, %s, %s)", (group, name, rows[-1][0]))
        log_rows(log, "ack", rows)


def answer_in_one_transaction(connection, group, name, table):
    with connection.transaction():
        rows = connection.execute(
            "select outbox_id, payload from pgtrickle.poll_outbox(%s, %s, 20, 5, 1)",
            (group, name)).fetchall()
        for id, payload in rows:
            connection.execute(f"insert into {table} values (%s, %s)", (id, payload))
        if rows:
            connection.execute("select pgtrickle.commit_offset(%s, %s, %s)",
                               (group, name, rows[-1][0]))


def main(dsn, group, name, log_path, table=None):
    with open(log_path, "a") as log:
        while True:
            try:
                with psycopg.connect(dsn, autocommit=True) as connection:
                    while True:
                        if table:
                            answer_in_one_transaction(connection, group, name, table)
                        else:
                            answer(connection, group, name, log)
            except psycopg.errors.ObjectNotInPrerequisiteState as late:
                assert "lease_lost" in late.diag.message_detail, late
                log.write("late\n")
            except psycopg.OperationalError:
                pass  # the backend was terminated


if __name__ == "__main__":
    main(*sys.argv[1:])
