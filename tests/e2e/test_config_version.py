"""A running relay follows every committed change of the catalog, in whatever order transactions
commit and whatever the clock says, and restarts no pipeline that did not change."""

import signal
import time

import pytest

from support.pipelines import Lines, make_table, set_outbox, to_file
from support.relay import Relay
from support.waiting import eventually, holds_for

CATALOG = "pgtrickle.relay_config"


@pytest.fixture
def world(db, relay_bin, tmp_path):
    """Pipelines a, b and quiet over one outbox into files, and a relay that runs them."""
    make_table(db)
    world = World(db, tmp_path)
    for name in ("a", "b", "quiet"):
        set_outbox(db, name, world.to_next_file(name))
    with Relay(db.relay_dsn, discovery_interval="1s") as relay:
        world.relay = relay
        relay.wait_healthy(pipelines=3)
        world.delivers("a", "b", "quiet")
        token = world.owner_token("quiet")
        yield world
        world.delivers("quiet")
        assert world.owner_token("quiet") == token, "a pipeline that did not change was restarted"


class World:
    def __init__(self, db, folder):
        self.db = db
        self.folder = folder
        self.files = {}
        self.row = 0
        self.number = 0

    def to_next_file(self, name):
        """A configuration of the pipeline with a file that it has not had before."""
        self.number += 1
        self.files[name] = Lines(self.folder / f"{name}-{self.number}.jsonl")
        return to_file("orders", self.files[name].path)

    def change(self, session, name):
        set_outbox(session, name, self.to_next_file(name), enable=False)

    def delivers(self, *names):
        """Each of these pipelines writes to the file that was set last, soon."""
        before = self.row

        def all_do():
            self.row += 1
            self.db.execute("insert into orders values (%s, 'x', 1)", (self.row,))
            return all((self.files[name].rows() or [0])[-1] > before for name in names)
        eventually(all_do, 15, interval=0.1, message=lambda: f"{names}: {self.relay.log(20)}")

    def owner_token(self, name):
        """A new one each time that the pipeline's source was opened."""
        return self.db.one("select owner_token from pgtrickle.relay_consumer_offsets"
                           " where pipeline_id = %s", (name,))

    def without_triggers(self, statement, *parameters):
        """Changes the catalog as a restored dump does: no trigger sets a time or notifies."""
        with self.db.connect(autocommit=False) as session:
            session.execute(f"alter table {CATALOG} disable trigger user")
            session.execute(statement, parameters)
            session.execute(f"alter table {CATALOG} enable always trigger touch,"
                            " enable always trigger notify")
            session.commit()


def test_a_change_that_commits_after_a_later_one_is_followed(world):
    for ending in ("commit", "rollback", "commit"):
        with world.db.connect(autocommit=False) as early:
            before = world.files["a"], world.owner_token("a")
            world.change(early, "a")
            world.change(world.db, "b")
            world.delivers("b")
            getattr(early, ending)()
        if ending == "rollback":
            world.files["a"] = before[0]
        world.delivers("a", "b")
        assert ending == "commit" or world.owner_token("a") == before[1]


def test_a_pipeline_that_is_switched_by_an_earlier_transaction_follows(world):
    for switch in ("disable_relay", "enable_relay"):
        with world.db.connect(autocommit=False) as early:
            early.execute(f"select pgtrickle.{switch}('a')")
            world.change(world.db, "b")
            world.delivers("b")
            early.commit()
        eventually(lambda: (not world.relay.lists("a")) == (switch == "disable_relay"), 15)
    world.delivers("a")


def test_a_change_after_the_clock_was_set_back_is_followed(world):
    """What the catalog holds then was changed in the future."""
    world.without_triggers(f"update {CATALOG} set updated_at = clock_timestamp() + interval '1 day'")
    world.delivers("a")
    world.change(world.db, "a")
    world.delivers("a", "b")
    with world.db.connect(autocommit=False) as early:
        early.execute("select pgtrickle.delete_relay('b')")
        world.change(world.db, "a")
        world.delivers("a")
        early.commit()
    eventually(lambda: not world.relay.lists("b"), 15)
    set_outbox(world.db, "b", world.to_next_file("b"))
    world.delivers("a", "b")


def test_changes_with_one_time_and_without_a_notification_are_followed(world):
    moment = world.db.one(f"select max(updated_at) from {CATALOG}")
    for _ in range(2):
        path = world.to_next_file("a")["sink"]["path"]
        world.without_triggers(
            f"update {CATALOG} set updated_at = %s,"
            " config = jsonb_set(config, '{sink,path}', to_jsonb(%s::text)) where name = 'a'",
            moment, path)
        world.delivers("a")
    # Deleted and made again by one transaction, as a script that replaces pipelines does it.
    with world.db.connect(autocommit=False) as script:
        script.execute("select pgtrickle.delete_relay('a')")
        set_outbox(script, "a", world.to_next_file("a"))
        script.commit()
    world.delivers("a", "b")


def test_rows_that_are_only_written_anew_restart_nothing(world):
    tokens = {name: world.owner_token(name) for name in ("a", "b", "quiet")}
    world.db.execute(f"vacuum full {CATALOG}")
    world.without_triggers(f"update {CATALOG} set updated_at = clock_timestamp()")
    world.db.execute("select pgtrickle.enable_relay(name) from pgtrickle.list_relay_configs()")
    world.delivers("a", "b", "quiet")
    holds_for(lambda: tokens == {name: world.owner_token(name) for name in tokens}, 1.5, 0.1)


def test_a_transaction_that_deletes_a_pipeline_and_stays_open_keeps_no_other_from_its_work(world):
    """It locks rows that the relay writes with the session that its leases depend on."""
    replay = world.db.one("select pgtrickle.replay_relay('b', 1, 1)")
    eventually(lambda: world.db.one("select finished_at is not null from pgtrickle.relay_replays"
                                    " where id = %s", (replay,)), 15)
    token = world.owner_token("a")
    with world.db.connect(autocommit=False) as early:
        world.db.execute("select pgtrickle.replay_relay('b', 1, 1)")
        early.execute("select pgtrickle.delete_relay('b')")
        begin = time.monotonic()
        while time.monotonic() - begin < 6:
            world.delivers("a")
            assert world.owner_token("a") == token, world.relay.log(20)
        early.rollback()
    world.delivers("a", "b")


def test_a_file_is_read_although_the_catalog_could_not_be_read_at_first(db, relay_bin, tmp_path):
    make_table(db)
    path = tmp_path / "relay.toml"
    catalog = f"select on {CATALOG}, pgtrickle.relay_pipelines"

    def refused():
        return sum("permission denied" in line for line in relay.log_lines)

    def is_read(name, begin):
        lines = Lines(tmp_path / name)
        path.write_text(f'[global]\npostgres_url = "{db.relay_dsn}"\n'
                        '[[pipeline]]\nname = "rows"\n'
                        'source = { type = "outbox", stream_table = "orders" }\n'
                        f'sink = {{ type = "file", path = "{lines.path}" }}\n')
        db.execute(f"revoke {catalog} from pgtrickle_relay")
        before = refused()
        begin()
        eventually(lambda: refused() > before, 15, message=relay.log)
        db.execute(f"grant {catalog} to pgtrickle_relay")

        def arrives():
            db.execute("insert into orders select coalesce(max(id), 0) + 1, 'x', 1 from orders")
            return lines.rows()
        eventually(arrives, 15, interval=0.1, message=relay.log)

    # No regular look comes in time: each attempt that fails is followed by another one.
    relay = Relay(None, "--config", path, discovery_interval="1h")
    is_read("first.jsonl", relay.start)
    with relay:
        is_read("second.jsonl", lambda: relay.process.signal(signal.SIGHUP))
