"""Random and concurrent statements: a replay of the outbox gives the table."""

import random
import threading

import psycopg
import pytest

from support.replay import Replay


# At random -------------------------------------------------------------------------------------

RANDOM_STATEMENTS = [
    "insert into things (id, grp, n) select {a} + g, {b}, g from generate_series(1, {few}) g "
    "on conflict do nothing",
    "insert into things (id, grp, n) values ({a}, {b}, {c}), ({c}, {b}, {a}) "
    "on conflict (id) do update set n = things.n + 1",
    "update things set n = n + {c} where grp = {b}",
    "update things set grp = (grp + {b}) % 5 where id % 7 = {b}",
    "update things set id = id + 1000 where id = {a} and not exists "
    "(select from things t where t.id = {a} + 1000)",
    "delete from things where id % 11 = {b}",
    "delete from things where id = {a}",
    "merge into things t using (select {a} + g as id from generate_series(1, {few}) g) s "
    "on t.id = s.id when matched and t.n % 2 = 0 then delete "
    "when matched then update set n = t.n + 1 "
    "when not matched then insert (id, grp, n) values (s.id, {b}, {c})",
    "with gone as (delete from things where grp = {b} and n % 3 = 0 returning *) "
    "update things set n = n + 1 where grp = ({b} + 1) % 5",
    "truncate things",
]


@pytest.mark.parametrize("seed", range(4))
def test_random_statements_replay_to_the_table(db, seed):
    """With user triggers, cascades, savepoints and partitions; two kinds of outbox at once."""
    dice = random.Random(seed)
    partitioned = seed % 2 == 1
    db.execute("create table things (id int primary key, grp int, n int, note text)"
               + (" partition by range (id)" if partitioned else ""))
    if partitioned:
        db.execute("create table things_1 partition of things for values from (0) to (60);"
                   "create table things_2 partition of things default")
    db.execute("select pgtrickle.enable_outbox('things', inline_threshold_rows => 8)")
    db.execute("""create function meddle() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() < 3 and new.n % 4 = 0 then
          update things set n = n + 1 where grp = new.grp and id <> new.id and n % 4 <> 3;
        elsif new.n % 9 = 5 then
          delete from things where id = new.id - 1;
        end if;
        return null; end $$;
        create trigger meddle after insert or update on things for each row
        execute function meddle()""")
    replay = Replay(db, "things")
    if db.server.version < 15:
        statements = [s for s in RANDOM_STATEMENTS if not s.startswith("merge")]
    else:
        statements = RANDOM_STATEMENTS
    with db.connect(autocommit=False) as connection:
        for step in range(150):
            statement = dice.choices(statements, [1 if s.startswith("truncate") else 10
                                                  for s in statements])[0]
            connection.execute("savepoint s")
            try:
                connection.execute(statement.format(
                    a=dice.randrange(120), b=dice.randrange(5), c=dice.randrange(120),
                    few=dice.randrange(1, 15)))
                if dice.random() < 0.1:
                    connection.execute("rollback to s")
            except psycopg.Error:
                connection.execute("rollback to s")
            if dice.random() < 0.3:
                (connection.commit if dice.random() < 0.8 else connection.rollback)()
            if step % 30 == 0:
                connection.commit()
                replay.check()
        connection.commit()
    replay.check()
    assert len(replay.entries()) > 50


def test_concurrent_writers_on_the_same_rows_replay_to_the_table(db):
    db.execute("create table hot (id int primary key, n int, who int)")
    db.execute("select pgtrickle.enable_outbox('hot', inline_threshold_rows => 5)")
    db.execute("""create function spread() returns trigger language plpgsql as $$ begin
        if new.n % 5 = 0 and pg_trigger_depth() = 1 then
          update hot set who = -1 where id = new.id; end if;
        return null; end $$;
        create trigger spread after update on hot for each row execute function spread()""")
    db.execute("insert into hot select n, 0, 0 from generate_series(1, 12) n")

    def write(number):
        dice = random.Random(number)
        with db.connect() as connection:
            for _ in range(60):
                statement = dice.choice([
                    "update hot set n = n + 1, who = {w} where id = {i}",
                    "update hot set n = n + 1 where id in (select id from hot order by id "
                    "limit {k} for update)",
                    "delete from hot where id = {i}",
                    "insert into hot values ({i}, 0, {w}) on conflict (id) "
                    "do update set n = hot.n + 1"])
                try:
                    connection.execute(statement.format(
                        w=number, i=dice.randrange(1, 13), k=dice.randrange(1, 12)))
                except psycopg.errors.DeadlockDetected:
                    pass

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    Replay(db, "hot").check()
