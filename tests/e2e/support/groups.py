"""Consumers of groups: psycopg sessions of a role that owns nothing."""

import contextlib

WORKER = "worker"
COLUMNS = ("outbox_id, pgt_id, created_at, inserted_count, deleted_count, is_claim_check, payload, "
           "event_type, event_key, headers, attempt")


def make_group(db, name="g", outbox="shop", owner=WORKER, **options):
    """A group for the role `owner`, which may use groups and nothing else."""
    db.login(owner, "pgtrickle_consumer")
    arguments = {"auto_offset_reset": "earliest", **options}
    named = "".join(f", {key} => %({key})s" for key in arguments)
    db.execute(f"select pgtrickle.create_consumer_group(%(name)s, %(outbox)s, owner => %(owner)s"
               f"{named})", {"name": name, "outbox": outbox, "owner": owner, **arguments})


@contextlib.contextmanager
def session(db, role=WORKER, **options):
    with db.connect(user=role, **options) as connection:
        yield connection


def publish(db, count, key="k", outbox="shop", first=1):
    db.execute("select pgtrickle.publish(%s, to_jsonb(i), key => %s) "
               "from generate_series(%s::int, %s::int) i", (outbox, key, first, first + count - 1))


def poll(connection, consumer="a", group="g", batch=100, visibility=30, wait=0):
    """The rows of a poll, as dictionaries."""
    cursor = connection.execute(
        f"select {COLUMNS} from pgtrickle.poll_outbox(%s, %s, %s, %s, %s)",
        (group, consumer, batch, visibility, wait))
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def payloads(rows):
    return [row["payload"] for row in rows]


def commit(connection, last, consumer="a", group="g"):
    connection.execute("select pgtrickle.commit_offset(%s, %s, %s)", (group, consumer, last))


def drain(connection, consumer="a", group="g", batch=100):
    """Polls and commits until nothing is left; the payloads."""
    taken = []
    while rows := poll(connection, consumer, group, batch):
        taken += payloads(rows)
        commit(connection, rows[-1]["outbox_id"], consumer, group)
    return taken


def expire(db, group="g"):
    """Lets all leases and consumers of a group be as if their time were over."""
    db.execute("update pgtrickle_internal.consumer_slots s set until = clock_timestamp() - "
               "interval '1 second' from pgtrickle_internal.consumer_groups g "
               "where g.group_number = s.group_number and g.name = %s and s.holder is not null",
               (group,))
    db.execute("update pgtrickle_internal.consumer_members m set alive_until = clock_timestamp() - "
               "interval '1 second' from pgtrickle_internal.consumer_groups g "
               "where g.group_number = m.group_number and g.name = %s", (group,))
