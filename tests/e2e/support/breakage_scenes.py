"""The scenes of support/breakages.py. Each is a generator: it breaks what the rows of a scene say,
yields that scene's name with where to look, and mends it by the remedies when it is asked to go on."""

import contextlib
import json
import os
import re
import resource
import shutil

import psycopg

from .http_server import HttpServer
from .kafka_server import KafkaServer
from .nats_server import NatsServer
from .pipelines import Lines, insert_rows, make_table, set_outbox, to_file, wait_settled
from .postgres import TlsServer
from .processes import Process, free_port, temporary_directory
from .rabbitmq_server import RabbitServer
from .redis_server import RedisServer
from .relay import Relay, run_command
from .scene import Scene
from .sqs_server import SqsServer
from .standby import Standby
from .tls import Authority
from .waiting import eventually

RETRY = {"min": "50ms", "max": "1s"}


@contextlib.contextmanager
def running(*servers):
    """Starts them all, and ends them."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield servers


def recovered(scene, *pipelines, deadline=40):
    """Each says once that its trouble has passed, and is well."""
    for name in pipelines:
        eventually(lambda: scene.relay.pipeline(name)["healthy"], deadline,
                   message=lambda: f"{name}: {scene.relay.pipeline(name)}\n{scene.relay.log()}")
        told = eventually(lambda: scene.recoveries(name), 5, message=scene.relay.log)
        assert len(told) == 1 and " INFO " in told[0], (name, told)
        assert re.search(r"recovered after \d+ failures? in \d+ s$", told[0]), told


# Destinations --------------------------------------------------------------------------------

KEY_ERROR = """
[[pipeline]]
name = "key"
source = {{ type = "outbox", outbox = "orders" }}
sink = {{ type = "nats", adress = "{url}" }}
"""


def sinks(db, tmp_path, **_):
    authority, other = Authority(), Authority("another authority")
    good = authority.certificate("good")
    expired = authority.certificate("expired", days=-1)
    tls = {"cert": expired[0], "key": expired[1], "ca": authority.ca}
    nats = NatsServer(user="u", password="right", max_payload=65536)
    nats_tls = NatsServer(tls={"cert": good[0], "key": good[1]})
    nats_expired = NatsServer(tls={"cert": expired[0], "key": expired[1]})
    redis, redis_expired = RedisServer(password="right"), RedisServer(tls=tls | {"unverified": 1})
    web, web_expired = HttpServer(), HttpServer(tls=expired)
    away = NatsServer()
    make_table(db)
    make_table(db, "refusals")
    db.execute("create table large (id int primary key, name text);"
               "select pgtrickle.enable_outbox('large');"
               "create table strict (event_id text primary key, payload jsonb,"
               " check (payload is null));"
               "grant select, insert on strict to pgtrickle_relay")

    def add(name, sink, **options):
        set_outbox(db, name, {"stream_table": "orders", "sink": sink, "retry": RETRY,
                              **({} if sink["type"] == "webhook" else {"subject_template": "x.{op}"}),
                              **options})

    def to_web(path, server=web, **options):
        return {"type": "webhook", "url": server.url(path), "allow_private": True, **options}

    with running(nats, nats_tls, nats_expired, redis, redis_expired, web, web_expired):
        user = {"type": "nats", "url": nats.url, "user": "u", "password": "right"}
        add("no stream", user | {"stream": "NOPE", "create_stream": False})
        add("nats password", user | {"password": "wrong"})
        add("host", {"type": "nats", "url": "nats://no-such-host.invalid:4222"})
        add("away", {"type": "nats", "url": away.url})
        add("nats ca", {"type": "nats", "url": nats_tls.url, "tls_ca": other.ca})
        add("nats expired", {"type": "nats", "url": nats_expired.url, "tls_ca": authority.ca})
        add("redis expired", {"type": "redis", "url": redis_expired.url, "tls_ca": authority.ca})
        add("redis password", {"type": "redis", "url": redis.url, "password": "wrong"})
        add("one of two", {"type": "redis", "password": "wrong",
                           "url": f"{redis.url},127.0.0.1:{free_port()}"})
        add("webhook expired", to_web("/", web_expired, tls_ca=authority.ca))
        for path in ("401", "404"):
            add(path, to_web(f"/{path}"))
        add("slow", to_web("/slow", timeout="500ms"))
        add("full", {"type": "file", "path": "/dev/full"})
        add("template", user, subject_template="x.{nope}")
        add("off", user)
        db.execute("select pgtrickle.disable_relay('off')")
        set_outbox(db, "too large", {"stream_table": "large", "sink": user,
                                     "subject_template": "y.{op}"})
        # A table that refuses every row.
        set_outbox(db, "refused", {"stream_table": "refusals", "retry": RETRY, "sink": {
            "type": "pg-inbox", "inbox_table": "public.strict",
            "columns": {"event_id": "event_id", "payload": "payload"}}})
        db.execute("create table purged (id int primary key, name text, amount int);"
                   "select pgtrickle.enable_outbox('purged', inline_threshold_rows => 2)")
        set_outbox(db, "purged", to_file("purged", tmp_path / "purged", retry=RETRY))
        db.execute("insert into purged select g, 'row', g from generate_series(1, 40) g")
        db.execute("delete from pgtrickle.outbox_delta_rows_purged where row_num in (1, 2, 11, 40)")
        add("paused", user)
        db.execute("select pgtrickle.pause_relay('paused')")
        for name in ("first", "second"):
            add(name, {"type": "file", "path": str(tmp_path / "same")})
        config = tmp_path / "relay.toml"
        config.write_text(KEY_ERROR.format(url=nats.url))
        web.rules({"path": "/401", "status": 401}, {"path": "/404", "status": 404},
                  {"path": "/slow", "delay": 2})
        insert_rows(db, "orders", 1)
        insert_rows(db, "refusals", 1, 10)
        db.execute("insert into large values (1, repeat('x', 100000))")
        env = {"PGTRICKLE_RELAY_ALLOW_FILE": f"/dev/full,{tmp_path}/**,{authority.directory}/**,"
                                             f"{other.directory}/**"}
        with Relay(db.relay_dsn, config=config, env=env) as relay:
            scene = Scene(db.relay_dsn, relay, config, env)
            yield "sinks", scene
            web.rules()
            for path in expired:
                shutil.copyfile(good[0] if path.endswith(".pem") else good[1], path)
            nats_expired.restart()
            with running(away):
                recovered(scene, "401", "404", "slow", "away", "nats expired")


def syntax(db, tmp_path, **_):
    config = tmp_path / "relay.toml"
    config.write_text('[[pipeline]]\nname = "a\n')
    relay = Relay(db.relay_dsn, config=config).start()
    eventually(lambda: not relay.running, 20)
    scene = Scene(db.relay_dsn, relay, config)
    make_table(db)
    for wrong in ({"batch_sise": 5}, {"batch_size": "many"}):
        try:
            set_outbox(db, "wrong", to_file("orders", "rows", **wrong))
        except psycopg.Error as error:
            scene.refusals.append(f"{error.diag.message_primary} {error.diag.message_hint}")
    yield "syntax", scene


# The database side ---------------------------------------------------------------------------

TABLES = ("revoked", "dropped", "rewound", "replaced", "fine")


def database(db, tmp_path, **_):
    lines = {name: Lines(tmp_path / name) for name in TABLES}
    for name in TABLES:
        make_table(db, name)
        set_outbox(db, name, to_file(name, lines[name].path, retry=RETRY))
        insert_rows(db, name, 1, 3)
    db.execute("create table divisors (n int);"
               "select pgtrickle.create_stream_table('quotients', 'select 1 / n as q from divisors')")
    role = db.relay_dsn.split("//")[1].split(":")[0]
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=len(TABLES))
        for name in TABLES:
            wait_settled(db, name, name)
        scene = Scene(db.relay_dsn, relay)
        db.execute("revoke select on pgtrickle.outbox_revoked from pgtrickle_relay;"
                   "drop table pgtrickle.outbox_dropped cascade;"
                   "truncate pgtrickle.outbox_rewound;"
                   "alter table replaced rename to replaced_before;"
                   "create table replaced (id bigint primary key, name text, amount numeric)")
        db.execute("insert into divisors values (0)")
        db.execute("do $$ begin perform setval((select outbox_sequence from"
                   " pgtrickle.pgt_outbox_config where outbox_table_name = 'outbox_rewound')"
                   "::regclass, 1); end $$")
        for name in ("revoked", "rewound"):
            insert_rows(db, name, 4)
        db.execute("alter function pgtrickle.relay_commit_position(text, text, uuid, uuid, bigint,"
                   " bigint, uuid) rename to away")
        insert_rows(db, "fine", 4)
        db.execute("create or replace function pgtrickle.pause_relay(name text) returns void"
                   " language sql security definer set search_path = pg_catalog, pg_temp"
                   " as 'select 1'")
        db.execute("update pgtrickle.relay_schema_history set checksum = 'older'"
                   " where file like '%positions%'")
        db.execute(f"alter role {role} in database {db.name}"
                   " set default_transaction_isolation = serializable")
        yield "database", scene
        done = run_command("init", "--postgres-url", db.dsn)
        assert done.returncode == 0, done.stderr
        db.execute("grant select on pgtrickle.outbox_revoked to pgtrickle_relay")
        db.execute("select pgtrickle.disable_outbox('dropped')")
        db.execute("select pgtrickle.enable_outbox('dropped')")
        done = scene._command("resume", "rewound", "--accept-loss")
        assert done.returncode == 0, done.stderr
        db.execute("select pgtrickle.rebind_outbox('outbox_replaced', 'public.replaced')")
        insert_rows(db, "dropped", 4)
        recovered(scene, "revoked", "dropped", "rewound", "fine")
        lines["revoked"].wait_rows([1, 2, 3, 4])
        lines["fine"].wait_rows([1, 2, 3, 4])
        lines["dropped"].wait_rows([1, 2, 3, 4])
    yield "nothing runs", Scene(db.relay_dsn)


# The way to the database ---------------------------------------------------------------------


class Bouncer:
    """PgBouncer in front of a database, as its user `nobody` when we are root."""

    def __init__(self, db, mode, dsn=None):
        dsn = dsn or db.relay_dsn
        self.port, self.directory = free_port(), temporary_directory("pgbouncer")
        os.chmod(self.directory, 0o777)
        self._path = os.path.join(self.directory, "pgbouncer.ini")
        user, password = re.match(r"postgresql://(.*):(.*)@", dsn).groups()
        self.url = dsn.replace(f":{db.server.port}/", f":{self.port}/")
        self._server = db.server
        with open(os.path.join(self.directory, "users"), "w") as users:
            users.write(f'"{user}" "{password}"\n')
        with open(self._path, "w") as settings:
            settings.write(f"""[databases]
{db.name} = host=127.0.0.1 port={db.server.port} dbname={db.name}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = plain
auth_file = {self.directory}/users
pool_mode = {mode}
""")

    def start(self):
        with open(os.path.join(self.directory, "log"), "w") as log:
            program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
            self.process = Process([program, self._path], user=self._server._user, stdout=log,
                                   stderr=log)

    def stop(self):
        self.process.kill9()


def pooler(db, tmp_path, **_):
    make_table(db)
    lines = Lines(tmp_path / "rows")
    set_outbox(db, "rows", to_file("orders", lines.path))
    insert_rows(db, "orders", 1)
    bouncer = Bouncer(db, "transaction")
    with running(bouncer), Relay(bouncer.url) as relay:
        yield "pooler", Scene(bouncer.url, relay)
        relay.stop()
    bouncer = Bouncer(db, "session")
    with running(bouncer), Relay(bouncer.url) as relay:
        relay.wait_healthy(pipelines=1)
        lines.wait_rows([1])


def sessions(db, **_):
    db.execute(f"alter database {db.name} connection limit 1")
    with db.connect(), Relay(db.relay_dsn) as relay:
        yield "sessions", Scene(db.relay_dsn, relay)
        db.execute(f"alter database {db.name} connection limit -1")
        relay.wait_healthy()


def servers(install, **_):
    server = TlsServer(Authority(), days=-1)
    server.start()
    try:
        server.make_template(install)
        db = server.create_database()
        url = f"{db.relay_dsn}?sslmode=verify-full&sslrootcert={server.ca}"
        with Relay(url) as relay:
            yield "certificate", Scene(url, relay)
        copy = Standby(server)
        copy.start()
        try:
            url = copy.dsn(db.name, user=db.relay_dsn.split("//")[1].split(":")[0])
            with Relay(url) as relay:
                yield "standby", Scene(url, relay)
        finally:
            copy.end()
    finally:
        server.stop_immediate()


# Limits of the process -----------------------------------------------------------------------


def limit(relay, kind, value=None):
    """Sets a limit of the running process; without a value, as it was."""
    hard = resource.prlimit(relay.pid, kind)[1]
    resource.prlimit(relay.pid, kind, (hard if value is None else value, hard))


def address_space(relay):
    with open(f"/proc/{relay.pid}/status") as status:
        return int(re.search(r"VmSize:\s+(\d+) kB", status.read()).group(1)) * 1024


def prepare(db, tmp_path, names):
    make_table(db)
    insert_rows(db, "orders", 1)
    for name in names:
        set_outbox(db, name, to_file("orders", tmp_path / name, retry=RETRY), enable=False)


def enable(db, names):
    for name in names:
        db.execute("select pgtrickle.enable_relay(%s)", (name,))


def all_delivered(scene, tmp_path, names):
    for name in names:
        Lines(tmp_path / name).wait_rows([1], deadline=30)
    scene.relay.wait_healthy(pipelines=len(names), deadline=30)


def descriptors(db, tmp_path, **_):
    names = [f"p{i}" for i in range(6)]
    prepare(db, tmp_path, names)
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy()
        scene = Scene(db.relay_dsn, relay)
        used = len(os.listdir(f"/proc/{relay.pid}/fd"))
        limit(relay, resource.RLIMIT_NOFILE, used + 6)
        enable(db, names)
        yield "descriptors", scene
        limit(relay, resource.RLIMIT_NOFILE)
        all_delivered(scene, tmp_path, names)


def threads(db, tmp_path, **_):
    names = [f"p{i}" for i in range(4)]
    prepare(db, tmp_path, names)
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy()
        scene = Scene(db.relay_dsn, relay)
        limit(relay, resource.RLIMIT_AS, address_space(relay) + (12 << 20))
        enable(db, names)
        yield "threads", scene
        limit(relay, resource.RLIMIT_AS)
        all_delivered(scene, tmp_path, names)


def memory(db, tmp_path, **_):
    prepare(db, tmp_path, ["large"])
    enable(db, ["large"])
    with Relay(db.relay_dsn) as relay:
        Lines(tmp_path / "large").wait_rows([1])
        scene = Scene(db.relay_dsn, relay)
        limit(relay, resource.RLIMIT_AS, address_space(relay) + (6 << 20))
        db.execute("insert into orders values (2, repeat('x', 25000000))")
        yield "memory", scene
        limit(relay, resource.RLIMIT_AS)
        recovered(scene, "large")
        Lines(tmp_path / "large").wait_rows([1, 2])


# Brokers that start slowly -------------------------------------------------------------------


def brokers(db, **_):
    rabbit, kafka, sqs = RabbitServer(), KafkaServer(properties={
        "auto.create.topics.enable": "false"}), SqsServer()
    make_table(db)
    insert_rows(db, "orders", 1)

    def add(name, sink):
        set_outbox(db, name, {"stream_table": "orders", "sink": sink, "retry": RETRY})

    with running(rabbit, kafka, sqs):
        add("topic", {"type": "kafka", "brokers": kafka.brokers, "topic": "nope"})
        add("unroutable", {"type": "rabbitmq", "url": rabbit.url, "exchange": "amq.topic",
                           "declare": False})
        add("rabbitmq password", {"type": "rabbitmq",
                                  "url": rabbit.url.replace("guest:guest", "guest:wrong")})
        add("sqs", {"type": "sqs", "endpoint": sqs.endpoint, "region": "elasticmq",
                    "queue_url": f"{sqs.endpoint}/000000000000/nope"})
        db.execute("""select pgtrickle.set_relay_inbox('queue', %s::jsonb)""", (json.dumps({
            "source": {"type": "rabbitmq", "url": rabbit.url, "queue": "nope", "declare": False},
            "inbox_name": "mail"}),))
        db.execute("select pgtrickle.enable_relay('queue')")
        env = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        with Relay(db.relay_dsn, env=env) as relay:
            yield "brokers", Scene(db.relay_dsn, relay, env=env)


SCENES = (sinks, syntax, database, pooler, sessions, servers, descriptors, threads, memory, brokers)
