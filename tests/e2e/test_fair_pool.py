"""What hundreds of pipelines do at once on one outbox leaves others their share of the connections."""

import os
import time

import pytest

from support.background import Background
from support.pipelines import Lines
from support.relay import Relay
from support.waiting import eventually

CROWD = 300
BUSY = 3
LONGEST_GAP = 8  # seconds, on a machine that does much else; it was beyond 80 with a thousand


class Writer(Background):
    """A row for each busy table again and again."""

    def __init__(self, db):
        super().__init__()
        self._db = db
        self.row = 0

    def _run(self):
        with self._db.connect() as session:
            while not self._stop.wait(0.02):
                self.row += 1
                for number in range(BUSY):
                    session.execute(f"insert into busy{number} values (%s)", (self.row,))


@pytest.mark.alone
def test_a_row_that_wakes_hundreds_of_pipelines_keeps_busy_ones_from_nothing(
        db, relay_bin, tmp_path, record_property):
    db.execute(f"""
        do $do$ begin
          create table shared (id int primary key);
          for n in 0..{BUSY - 1} loop
            execute format('create table busy%s (id int primary key)', n);
          end loop;
          for n in 0..{CROWD + BUSY - 1} loop
            perform pgtrickle.set_relay_outbox('p' || n, jsonb_build_object(
              'stream_table', case when n < {BUSY} then 'busy' || n else 'shared' end,
              'sink', jsonb_build_object('type', 'file',
                                         'path', '{tmp_path}/p' || n || '.jsonl')), true);
          end loop;
        end $do$""")
    busy = [Lines(tmp_path / f"p{number}.jsonl") for number in range(BUSY)]
    crowd = [tmp_path / f"p{number}.jsonl" for number in range(BUSY, BUSY + CROWD)]
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=CROWD + BUSY, deadline=90)
        eventually(lambda: all(p["state"] == "idle" for p in relay.health()[1]["pipelines"]), 90,
                   interval=0.2)
        with Writer(db) as writer:
            eventually(lambda: all(lines.rows()[-1:] > [0] for lines in busy), 30)
            gaps = Gaps(busy)
            db.execute("insert into shared values (1)")
            eventually(lambda: gaps.look() and all(path.exists() and path.stat().st_size > 0
                                                   for path in crowd), 60, interval=0.05)
            settled = writer.row
            eventually(lambda: gaps.look() and all(lines.rows()[-1] >= settled for lines in busy),
                       30, interval=0.05)
        record_property("longest gap", round(gaps.longest, 2))
        assert gaps.longest < LONGEST_GAP
        assert not [line for line in relay.log_lines if "pool_exhausted" in line]


class Gaps:
    """The longest time for which a file did not grow."""

    def __init__(self, files):
        self._paths = [lines.path for lines in files]
        self._seen = {path: (time.monotonic(), None) for path in self._paths}
        self.longest = 0

    def look(self):
        now = time.monotonic()
        for path in self._paths:
            since, size = self._seen[path]
            if os.path.getsize(path) != size:
                self._seen[path] = (now, os.path.getsize(path))
            self.longest = max(self.longest, now - since)
        return True
