"""The webhook receiver without its databases, at a stop, and under load while servers are killed."""

import asyncio
import contextlib
import http.client
import json
import threading
import time

from support.pipelines import LONG, SLOW_FACTOR
from support.processes import free_port
from support.proxy import FaultProxy
from support.relay import Relay
from support.waiting import eventually, holds_for
from support.webhook_receiver import (JSON, TABLE, head, listens, port, rows, send, set_receiver,
                                      status, wait_listening)


# Trouble ----------------------------------------------------------------------------------------


def test_without_its_destination_it_answers_503_and_recovers(db, own_pg_server, own_db, relay, port):
    """The inbox is in another server than the relay's own database."""
    config = {"source": {"type": "webhook", "listen": f"127.0.0.1:{port}",
                         "response_timeout": "1s"},
              "sink": {"type": "inbox", "inbox_name": "hooks", "url": own_db.relay_dsn}}
    db.execute("select pgtrickle.set_relay_inbox('hooks', config => %s::jsonb, enabled => true)",
               (json.dumps(config),))
    with relay:
        wait_listening(port, relay)
        assert status(port, headers={**JSON, "Idempotency-Key": "before"}) == 200
        own_pg_server.stop_immediate()
        took = []
        for n in range(6):
            began = time.monotonic()
            code, headers, body = send(port, headers={**JSON, "Idempotency-Key": f"during{n}"})
            took.append(time.monotonic() - began)
            assert code == 503 and int(headers["Retry-After"]) > 0 and body["error"]
        assert took[0] > 0.9 and took[-1] < 0.9, took
        own_pg_server.start()
        eventually(lambda: status(port, headers={**JSON, "Idempotency-Key": "after"}) == 200,
                   60 * SLOW_FACTOR, message=lambda: relay.log(40))
    stored = {row[0] for row in rows(own_db)}
    assert {"hooks:before", "hooks:during0", "hooks:after"} <= stored


def turned_away(port):
    """Whether a request is answered, and with: come again later."""
    code, headers, body = send(port)
    return code == 503 and int(headers["Retry-After"]) > 0 and body["error"] == "unavailable"


def test_without_the_relays_database_it_answers_503_and_recovers(own_pg_server, own_db, relay_bin,
                                                                 port):
    set_receiver(own_db, port, options={"response_timeout": "1s"})
    with Relay(own_db.relay_dsn) as relay:
        wait_listening(port, relay)
        for stop in (own_pg_server.stop_immediate, own_pg_server.kill9):
            eventually(lambda: status(port) == 200, 60 * SLOW_FACTOR,
                       message=lambda: relay.log(40))
            stop()
            holds_for(lambda: turned_away(port), 4, interval=0.02)
            own_pg_server.start()
        began = time.monotonic()
        eventually(lambda: status(port) == 200, 60 * SLOW_FACTOR, interval=0.02,
                   message=lambda: relay.log(40))
        print(f"200 again {time.monotonic() - began:.2f} s after PostgreSQL was")


def test_a_pipeline_that_goes_away_with_the_database_gives_its_port_back(
        own_pg_server, own_db, relay_bin, port):
    """A change that was made while the database was away takes effect when it is back."""
    set_receiver(own_db, port)
    with Relay(own_db.relay_dsn) as relay, FaultProxy(own_pg_server.port) as proxy:
        wait_listening(port, relay)
        relay.stop()
        through = Relay(own_db.relay_dsn.replace(str(own_pg_server.port), str(proxy.port)))
        with through:
            wait_listening(port, through)
            proxy.cut()
            eventually(lambda: turned_away(port), 20 * SLOW_FACTOR)
            own_db.execute("select pgtrickle.disable_relay('hooks')")
            proxy.restore()
            eventually(lambda: not listens(port), 30 * SLOW_FACTOR)


def test_while_another_relay_owns_the_pipeline_one_without_the_database_accepts_nothing(
        own_pg_server, own_db, relay_bin, port):
    """Each listens at an address of its own, as on hosts of their own."""
    other = free_port()
    config = {"source": {"type": "webhook", "listen": "127.0.0.1:${env:HOOKS_PORT}"},
              "sink": {"type": "inbox", "inbox_name": "hooks"}}
    own_db.execute("select pgtrickle.set_relay_inbox('hooks', config => %s::jsonb, enabled => true)",
                   (json.dumps(config),))
    with FaultProxy(own_pg_server.port) as proxy:
        dsn = own_db.relay_dsn.replace(str(own_pg_server.port), str(proxy.port))
        with Relay(dsn, env={"HOOKS_PORT": str(port)}, allow_secret="env:HOOKS_PORT") as first:
            wait_listening(port, first)
            assert status(port) == 200
            with Relay(own_db.relay_dsn, env={"HOOKS_PORT": str(other)},
                       allow_secret="env:HOOKS_PORT") as second:
                second.wait_up()
                proxy.cut()
                wait_listening(other, second)
                assert status(other, headers={**JSON, "Idempotency-Key": "second"}) == 200
                holds_for(lambda: turned_away(port), 2, interval=0.05)
                proxy.restore()
                eventually(lambda: not listens(port), 30 * SLOW_FACTOR,
                           message=lambda: first.log(40))
                assert status(other) == 200
    assert len(rows(own_db)) == 3


def test_what_waits_is_bounded_and_a_stop_answers_it(own_pg_server, own_db, relay_bin, port):
    """A table that is locked for a while holds everything up."""
    set_receiver(own_db, port, options={"max_waiting": 4, "response_timeout": "60s"})
    codes = []

    def client(n):
        try:
            codes.append(status(port, headers={**JSON, "Idempotency-Key": f"w{n}"}))
        except (OSError, http.client.HTTPException):
            codes.append(None)
    with Relay(own_db.relay_dsn) as relay:
        wait_listening(port, relay)
        assert status(port) == 200
        blocker = own_db.connect(autocommit=False)
        blocker.execute(f"lock table {TABLE} in access exclusive mode")
        threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: status(port, timeout=2) == 503, 20)
        assert set(codes) <= {503}  # one of them may have come after this request
        stopper = threading.Thread(target=relay.stop)
        stopper.start()
        for thread in threads:
            thread.join(60)
        blocker.rollback()
        blocker.close()
        stopper.join(60)
    assert codes == [503] * 4


# Load -------------------------------------------------------------------------------------------


class Load:
    """Many connections that send one request after the other, until told to end. What was answered
    with 200 is in `confirmed`, everything that was sent in `sent`."""

    def __init__(self, port, connections):
        self.port, self.connections = port, connections
        self.sent, self.confirmed, self.codes = set(), set(), {}
        self._loop, self._ending = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._all()),
                                        daemon=True)

    async def _all(self):
        await asyncio.gather(*(self._client(n) for n in range(self.connections)))

    async def _client(self, number):
        count = 0
        while not self._ending.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await self._pause()
                continue
            try:
                while not self._ending.is_set():
                    count += 1
                    identity = f"{number}-{count}"
                    # Every third that fails is sent once more; the others stay as they are.
                    if await self._one(reader, writer, identity) != 200:
                        await self._pause()
                        if count % 3 == 0:
                            await self._one(reader, writer, identity)
            except (OSError, asyncio.IncompleteReadError, IndexError, ValueError):
                pass
            finally:
                writer.close()

    async def _pause(self):
        """Until the load ends, and 50 ms at most: a client that is turned away does not spin."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ending.wait(), 0.05)

    async def _one(self, reader, writer, identity):
        body = json.dumps({"id": identity}).encode()
        writer.write(head(f"Idempotency-Key: {identity}\r\nContent-Type: application/json\r\n"
                          f"Content-Length: {len(body)}\r\n") + body)
        self.sent.add(identity)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        code = int(answer.split()[1])
        length = next(int(line.split(b":")[1]) for line in answer.split(b"\r\n")
                      if line.lower().startswith(b"content-length"))
        await reader.readexactly(length)
        self.codes[code] = self.codes.get(code, 0) + 1
        if code == 200:
            self.confirmed.add(identity)
        return code

    def start(self):
        self._thread.start()
        return self

    def end(self):
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(90)
        assert not self._thread.is_alive()

    def check(self, db):
        stored = db.execute("select substr(event_id, length('hooks:') + 1), payload ->> 'id'"
                            f" from {TABLE}")
        assert all(identity == inside for identity, inside in stored)
        identities = [identity for identity, _ in stored]
        assert len(identities) == len(set(identities))
        assert not self.confirmed - set(identities), "answered with 200, and not in the table"
        assert not set(identities) - self.sent
        print(f"{self.codes} answers, {len(identities)} rows, {len(self.confirmed)} confirmed")


def seconds_of_load(load, seconds):
    before = len(load.confirmed)
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end and len(load.confirmed) > before + 256,
               seconds + 60 * SLOW_FACTOR, message=lambda: load.codes)


def test_every_200_is_in_the_table_when_postgresql_restarts_under_256_connections(
        own_pg_server, own_db, relay_bin, port):
    set_receiver(own_db, port, options={"response_timeout": "5s"})
    with Relay(own_db.relay_dsn) as relay:
        wait_listening(port, relay)
        load = Load(port, 256).start()
        seconds_of_load(load, 30 if LONG else 3)
        own_pg_server.restart("immediate")
        seconds_of_load(load, 30 if LONG else 3)
        load.end()
        load.check(own_db)
        together = own_db.one(f"select count(*)::float8 / count(distinct xmin::text) from {TABLE}")
        print(f"{together:.1f} requests a transaction")
        assert together > 2, "concurrent requests share a transaction"


def test_every_200_is_in_the_table_when_the_relay_is_killed(db, relay_bin, port):
    set_receiver(db, port)
    relay = Relay(db.relay_dsn).start()
    wait_listening(port, relay)
    load = Load(port, 64).start()
    for _ in range(10 if LONG else 3):
        seconds_of_load(load, 0.5)
        relay.kill9()
        relay.start()
    seconds_of_load(load, 0.5)
    load.end()
    load.check(db)
    relay.stop()
