"""Secrets appear nowhere, and pipelines in SQL get from the relay's host what its operator allows."""

import base64
import hashlib
import json
import os
import re
import socket
import threading
import urllib.parse

import pytest
from psycopg.types.json import Jsonb

from support.http_server import HttpServer
from support.pipelines import insert_rows, make_table, set_outbox, to_file
from support.postgres import refusal
from support.processes import free_port
from support.relay import Relay, run_command
from support.waiting import eventually



def mark(name):
    """A secret that looks like nothing else, with what URLs, JSON and SQL give a meaning."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{digest[:7]}@{digest[7:14]}/{digest[14:20]}+{digest[20:27]}:{digest[27:33]}%{digest[33:40]}"


MARKS = {name: mark(name) for name in [
    "database", "admin", "nats-url", "nats-token", "redis", "rabbit", "kafka", "kafka-key", "sqs-id",
    "sqs-key", "sqs-session", "hook-user", "hook-path", "hook-query", "hook-header", "hook-bearer",
    "hook-signing", "row-header", "remote", "conninfo", "file", "toml", "literal-header"]}


def part_of(secret, text):
    """A part of eight characters of a secret that the text holds, in any notation; else None."""
    forms = {secret, json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe="")}
    encoded = {base64.b64encode(b"\0" * lead + secret.encode()).decode() for lead in range(3)}
    forms |= {form[4:-4] for form in encoded}
    for form in forms:
        for at in range(len(form) - 7):
            if form[at:at + 8] in text:
                return form[at:at + 8]
    return None


def assert_no_mark(text, where):
    for name, secret in MARKS.items():
        found = part_of(secret, text)
        assert found is None, f"{where} shows {found!r} of {name}: " + \
            re.sub(r"\s+", " ", text[max(0, text.find(found) - 200):][:500])


def quoted(secret):
    return urllib.parse.quote(secret, safe="")


def refused_port():
    """A port where nothing listens."""
    return free_port()


def every_row(db):
    """Every row of every table of ours but the configuration's, which users write themselves."""
    tables = [name for (name,) in db.execute(
        "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'p', 'v', 'm')"
        " and c.relnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)"
        " and c.relname not in ('relay_config', 'relay_outbox_config', 'relay_inbox_config',"
        " 'relay_bridge_config', 'relay_pipelines')")]
    assert "pgtrickle.relay_dlq" in tables and "pgtrickle.relay_pipeline_status" in tables
    return {name: "\n".join(row for (row,) in db.execute(f"select t::text from {name} t"))
            for name in tables}


@pytest.fixture
def web():
    server = HttpServer().start()
    server.rules({"path": "/", "status": 422, "answer": "you sent " + " ".join(MARKS.values())})
    yield server
    server.stop()


def scene(db, web, tmp_path):
    """Pipelines with a secret in each place that can hold one; each of them fails in its own way.
    Returns the environment that the references are resolved in."""
    environment = {f"MARK_{name.upper().replace('-', '_')}": secret
                   for name, secret in MARKS.items()}
    (tmp_path / "mark").write_text(MARKS["file"] + "\n")
    closed = refused_port()
    relay_role = db.relay_dsn.split("//")[1].split(":")[0]
    server = db.server

    def env(name):
        return f"${{env:MARK_{name.upper().replace('-', '_')}}}"

    environment["MARK_HOOK_URL"] = (
        f"http://user:{quoted(MARKS['hook-user'])}@127.0.0.1:{web.port}/"
        f"{quoted(MARKS['hook-path'])}/{{stream_table}}?x={quoted(MARKS['hook-query'])}")
    environment["MARK_CONNINFO"] = (f"host=127.0.0.1 port={server.port} dbname={db.name}"
                                    f" user={relay_role} password='{MARKS['conninfo']}'")
    hook = {"type": "webhook", "allow_private": True}
    for name, sink in {
            "hook-from-env": {**hook, "url": "${env:MARK_HOOK_URL}",
                              "signature_secret": env("hook-signing"),
                              "request_headers": {"X-Own": env("hook-header")}},
            "hook-literal": {**hook, "bearer_token": MARKS["hook-bearer"],
                             "url": f"http://127.0.0.1:{web.port}/literal"
                                    f"?token={quoted(MARKS['hook-query'])}"},
            "nats-refused": {"type": "nats", "token": env("nats-token"),
                             "url": f"nats://127.0.0.1:{closed}"},
            "nats-ambiguous": {"type": "nats",
                               "url": f"nats://u:{MARKS['nats-url']}@127.0.0.1:{closed}"},
            "nats-list": {"type": "nats", "url": f"nats://u:{quoted(MARKS['nats-url'])}@127.0.0.1"
                                                 f":{closed},nats://127.0.0.1:{closed}"},
            "redis-refused": {"type": "redis", "url": f"redis://127.0.0.1:{closed}",
                              "password": env("redis")},
            "rabbit-refused": {"type": "rabbitmq", "exchange": "x", "url":
                               f"amqp://u:{quoted(MARKS['rabbit'])}@127.0.0.1:{closed}"},
            "kafka-refused": {"type": "kafka", "brokers": f"127.0.0.1:{closed}",
                              "sasl_username": "u", "sasl_password": env("kafka"), "connect_timeout": "1s",
                              "rdkafka": {"ssl.key.pem": env("kafka-key")}},
            "sqs-refused": {"type": "sqs", "region": "eu-west-1",
                            "queue_url": f"http://127.0.0.1:{web.port}/123456789012/q",
                            "access_key_id": env("sqs-id"), "secret_access_key": env("sqs-key"),
                            "session_token": env("sqs-session")},
            "inbox-refused": {"type": "pg-inbox", "inbox_name": "x", "url":
                              f"postgresql://{relay_role}:{quoted(MARKS['remote'])}@127.0.0.1:"
                              f"{server.port}/{db.name}"},
            "inbox-conninfo": {"type": "pg-inbox", "inbox_name": "x", "url": "${env:MARK_CONNINFO}"},
            "inbox-ambiguous": {"type": "pg-inbox", "inbox_name": "x", "url":
                                f"postgresql://u:{MARKS['remote']}@127.0.0.1/{db.name}"},
            "file-reference": {"type": "nats", "url": f"nats://127.0.0.1:{closed}",
                               "token": f"${{file:{tmp_path}/mark}}"},
    }.items():
        config = {"stream_table": "orders", "sink": sink}
        if name == "hook-from-env":
            config["headers"] = {"Authorization": f"Bearer {env('row-header')}",
                                 "X-Row": f"{{{{ name }}}} {env('row-header')}"}
        if name == "hook-literal":
            config["headers"] = {"Authorization": f"Bearer {MARKS['literal-header']}"}
        set_outbox(db, name, config)
    return environment


@pytest.mark.parametrize("sink", [
    {"type": "nats", "url": {"password": "marked"}}, {"type": "nats", "password": 5, "token": ["marked"]},
    {"type": "nats", "url": "nats://u:marked@h", "ulr": "marked"}, {"type": "marked-not"},
    {"type": "webhook", "url": "https://h/marked", "method": "https://h/marked"},
    {"type": "nats", "max_in_flight": "nats://u:marked@h"}])
def test_what_sql_refuses_is_said_without_the_secret_in_it(db, sink):
    make_table(db)
    config = {"stream_table": "orders", "sink": sink, "nats_password": "marked"}
    said = refusal(db, "select pgtrickle.set_relay_outbox('p', %s)", (Jsonb(config),))
    assert 'pipeline "p"' in said and "marked" not in said.replace("marked-not", "")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_marked_secret_appears_nowhere(db, orders, web, tmp_path, log_format):
    environment = scene(db, web, tmp_path)
    (tmp_path / "relay.toml").write_text(f"""
[global]
[[pipeline]]
name = "from-file"
source = {{ type = "outbox", stream_table = "orders" }}
sink = {{ type = "nats", url = "nats://127.0.0.1:{refused_port()}", token = "${{MARK_TOML}}" }}
""")
    relay_role = db.relay_dsn.split("//")[1].split(":")[0]
    db.execute(f"create role marked login in role pgtrickle_relay password"
               f" '{MARKS['database']}'" if not db.one(
                   "select 1 from pg_roles where rolname = 'marked'") else "select 1")
    dsn = db.relay_dsn.replace(db.relay_dsn.split("//")[1].split("@")[0],
                               f"marked:{quoted(MARKS['database'])}")
    assert relay_role in db.relay_dsn
    allow = ["--allow-secret", "env:MARK_*", "--allow-secret", f"file:{tmp_path}/*"]
    (tmp_path / "admin").write_text(MARKS["admin"])
    flags = ["--postgres-url", dsn, "--config", tmp_path / "relay.toml",
             "--admin-token-file", tmp_path / "admin", *allow]
    with Relay(dsn, *allow, env=environment, log_level="debug", log_format=log_format,
               admin_token=MARKS["admin"], config=tmp_path / "relay.toml") as relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: db.one("select count(distinct pipeline) from pgtrickle.relay_dlq"
                                  " where pipeline like 'hook-%%'") == 2, 20, message=relay.log)
        known = db.one("select count(*) from pgtrickle.relay_pipelines") + 1
        eventually(lambda: sum(p["last_error"] is not None or p["name"].startswith("hook")
                               for p in relay.health()[1]["pipelines"]) == known, 20,
                   message=relay._story)
        with open(f"/proc/{relay.pid}/cmdline") as command:
            assert_no_mark(command.read(), "the list of processes")
        for path in ("/health", "/health/ready", "/health/drained", "/metrics", "/api/pipelines",
                     "/api/pipelines/hook-from-env", "/api/dlq", "/api/dlq?pipeline=hook-literal"):
            status, body = relay.get(path)
            assert body
            assert_no_mark(body, f"GET {path}")
        for path in ("/api/pipelines/none/pause", "/api/dlq/99999/retry"):
            for token in (MARKS["admin"], "wrong"):
                answer = relay.get(path, method="POST",
                                   headers={"Authorization": f"Bearer {token}"})[1]
                assert_no_mark(answer, f"POST {path}")
        letter = db.one("select id from pgtrickle.relay_dlq where pipeline = 'hook-from-env'")
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        eventually(lambda: db.one("select attempts from pgtrickle.relay_dlq where id = %s",
                                  (letter,)) > 1, 20)
        for command in (["check"], ["status"], ["pipelines", "list"],
                        ["pipelines", "show", "hook-from-env"],
                        ["pipelines", "show", "hook-literal"], ["pipelines", "show", "nats-list"],
                        ["dlq", "list"], ["dlq", "show", letter],
                        ["tail", "hook-from-env", "--from", "1", "--count", "1"],
                        ["tail", "hook-literal", "--from", "1", "--count", "1"], ["options"]):
            for form in ([["--json"]] if log_format == "json" else [[]]):
                done = run_command(*command, *flags, *form, env=environment)
                assert done.stdout.strip(), done.stderr
                assert_no_mark(done.stdout, f"the output of {command} {form}")
                assert_no_mark(done.stderr, f"the errors of {command} {form}")
        for name, rows in every_row(db).items():
            assert_no_mark(rows, f"the table {name}")
        wrong = dsn.replace("marked:", "nobody:")
        ambiguous = dsn.replace(quoted(MARKS["database"]), MARKS["database"])
        for url in (wrong, ambiguous, dsn.replace(str(db.server.port), str(refused_port())),
                    f"host=127.0.0.1 port=1 password='{MARKS['database']}'",
                    f"password={MARKS['database']} x y", dsn.replace("//", "//@")):
            done = run_command("check", "--postgres-url", url)
            assert done.returncode != 0
            assert_no_mark(done.stdout + done.stderr, "check with a wrong URL")
        assert_no_mark(relay.log(1_000_000), "the log")
    assert_no_mark(relay.log(1_000_000), "the log")


def test_the_scan_of_the_tests_finds_secrets_in_any_notation():
    """A test that cannot fail would prove nothing."""
    for secret in MARKS.values():
        for text in (secret, secret[-10:], json.dumps({"x": secret}), quoted(secret),
                     base64.b64encode(f"user:{secret}".encode()).decode()):
            with pytest.raises(AssertionError):
                assert_no_mark(f"some text {text} and more", "it")


# Dead letters ------------------------------------------------------------------------------


def test_a_dead_letter_holds_references_and_is_sent_again_exactly(db, orders, start_relay):
    web = HttpServer().start()
    try:
        web.rules({"path": "/", "status": 422, "times": 1})
        secret = "bearer-of-the-row-1"
        env = {"HOOK_URL": f"http://127.0.0.1:{web.port}/secret-path/{{stream_table}}?key={{op}}",
               "HOOK_TOKEN": secret}
        set_outbox(db, "p", {
            "stream_table": "orders", "message": "row",
            "headers": {"Authorization": "Bearer ${env:HOOK_TOKEN}",
                        "X-Price": "5$ ${env:HOOK_TOKEN} $$ {{ name }}", "X-Plain": "$1"},
            "sink": {"type": "webhook", "url": "${env:HOOK_URL}", "allow_private": True}})
        with start_relay(db.relay_dsn, env=env, allow_secret="env:HOOK_*") as relay:
            db.execute("insert into orders values (1, 'costs $${env:HOOK_TOKEN}', 1)")
            subject, headers = eventually(lambda: db.execute(
                "select subject, headers from pgtrickle.relay_dlq"), 20, message=relay.log)[0]
            assert subject == "${env:HOOK_URL}orders${env:HOOK_URL#2}insert"
            assert headers["Authorization"] == "Bearer ${env:HOOK_TOKEN}"
            db.execute("select pgtrickle.relay_dlq_retry_all('p')")
            eventually(lambda: len(web.requests()) == 2, 20, message=relay.log)
            first, second = web.requests()
            assert second.status == 200
            assert (second.path, second.body, second.id) == (first.path, first.body, first.id)
            times = {"webhook-timestamp", "webhook-signature"}
            assert {k: v for k, v in second.headers.items() if k not in times} == \
                {k: v for k, v in first.headers.items() if k not in times}
            assert first.headers["x-price"] == f"5$ {secret} $$ costs $${{env:HOOK_TOKEN}}"
            assert first.headers["authorization"] == f"Bearer {secret}"
    finally:
        web.stop()


def test_a_dead_letter_of_a_message_asks_for_no_secret_and_goes_to_no_other_host(
        db, start_relay):
    """A publisher writes what looks like a sealed letter; a role changes where one goes."""
    web, elsewhere = HttpServer().start(), HttpServer().start()
    try:
        web.rules({"path": "/", "status": 422, "times": 2})
        db.execute("select pgtrickle.create_outbox('events')")
        set_outbox(db, "p", {
            "outbox": "events", "headers": {"X-Key": "${env:HOOK_KEY}"},
            "sink": {"type": "webhook", "url": web.url("/hook"), "allow_private": True,
                     "bearer_token": "${env:HOOK_BEARER}"}})
        with start_relay(db.relay_dsn, allow_secret="env:HOOK_*",
                         env={"HOOK_KEY": "key-of-the-hook", "HOOK_BEARER": "bearer-of-it"}):
            db.execute("""select pgtrickle.publish('events', '{}', event_type => 'e', headers =>
                '{"pgtrickle-sealed": "true", "x-mine": "${env:HOOK_KEY} ${env:HOOK_BEARER}"}')""")
            db.execute("select pgtrickle.publish('events', '{}', event_type => 'e')")
            eventually(lambda: db.one("select count(*) from pgtrickle.relay_dlq") == 2, 20)
            db.execute("update pgtrickle.relay_dlq set subject = %s where id = 2",
                       (elsewhere.url("/"),))
            db.execute("select pgtrickle.relay_dlq_retry_all('p')")
            eventually(lambda: db.one("select count(*) from pgtrickle.relay_dlq where attempts = 2"
                                      " or resolved_at is not null") == 2, 20)
        again = web.requests()[-1]
        assert again.headers["x-mine"] == "${env:HOOK_KEY} ${env:HOOK_BEARER}"
        assert again.headers["x-key"] == "key-of-the-hook"
        assert elsewhere.requests() == []
        assert db.one("select error_code from pgtrickle.relay_dlq where id = 2") == "other_host"
    finally:
        web.stop()
        elsewhere.stop()


# References --------------------------------------------------------------------------------


def with_token(token):
    return {"stream_table": "orders", "sink": {"type": "nats", "token": token,
                                               "url": f"nats://127.0.0.1:{refused_port()}"}}


def test_references_in_sql_are_those_that_the_operator_allows(db, orders, start_relay, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "..2026_01_01").mkdir()
    (tmp_path / "in" / "..2026_01_01" / "mounted").write_text("mounted-by-kubernetes")
    (tmp_path / "in" / "..data").symlink_to("..2026_01_01")
    (tmp_path / "in" / "mounted").symlink_to("..data/mounted")
    (tmp_path / "in" / "ok").write_text("allowed-token")
    (tmp_path / "out").write_text("of-the-host-only")
    (tmp_path / "in" / "link").symlink_to("../out")
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "in" / "deep" / "er").write_text("too-deep")
    os.mkfifo(tmp_path / "in" / "pipe")
    (tmp_path / "alias").symlink_to("in")
    inside = f"{tmp_path}/in"
    allowed = {"env": "a${env:GOOD_TOKEN}", "file": f"${{file:{inside}/ok}}",
               "dots": f"${{file:{inside}/deep/../ok}}", "mounted": f"${{file:{inside}/mounted}}",
               "alias": f"${{file:{tmp_path}/alias/ok}}"}
    refused = {"other": "${env:OTHER_TOKEN}", "unset": "${env:NOT_SET}", "home": "${env:HOME}",
               "link": f"${{file:{inside}/link}}", "outside": f"${{file:{tmp_path}/out}}",
               "climbing": f"${{file:{inside}/../out}}", "deep": f"${{file:{inside}/deep/er}}",
               "passwd": "${file:/etc/passwd}", "absent": f"${{file:{tmp_path}/none}}",
               "environ": "${file:/proc/self/environ}", "twice": "${env:GOOD_INDIRECT}${env:X}"}
    for name, token in {**allowed, **refused, "pipe": f"${{file:{inside}/pipe}}"}.items():
        set_outbox(db, name, with_token(token))
    config = tmp_path / "relay.toml"
    config.write_text(f"""
[global]
allow_secret = ["env:GOOD_*", "file:{inside}/*", "file:{tmp_path}/alias/*"]
[[pipeline]]
name = "operator"
source = {{ type = "outbox", stream_table = "orders" }}
sink = {{ type = "nats", url = "nats://127.0.0.1:{refused_port()}", token = "${{env:OTHER_TOKEN}}" }}
""")
    env = {"GOOD_TOKEN": "good-token", "OTHER_TOKEN": "other-token", "GOOD_INDIRECT": "${env:INNER}"}
    with start_relay(db.relay_dsn, env=env, config=config) as relay:
        for name in [*allowed, "operator"]:
            shown = relay.wait_state(name, "retrying")
            assert "cannot connect to NATS" in shown["last_error"]
        for name, token in refused.items():
            shown = relay.wait_state(name, "misconfigured")
            reference = token.split("}")[-2].split("${")[-1]
            assert f"${{{reference}}} is not allowed" in shown["last_error"]
            assert "--allow-secret '" in shown["remedy"]
        assert "--allow-secret 'env:OTHER_TOKEN'" in relay.pipeline("other")["remedy"]
        assert f"--allow-secret 'file:{tmp_path}/out'" in relay.pipeline("climbing")["remedy"]
        assert "no regular file" in relay.wait_state("pipe", "misconfigured")["last_error"]
        # What is changed while it runs is held to the same list.
        set_outbox(db, "env", with_token("${env:OTHER_TOKEN}"))
        relay.wait_state("env", "misconfigured")
    tail = run_command("tail", "other", "--postgres-url", db.relay_dsn, "--config", config, env=env)
    assert tail.returncode != 0 and "--allow-secret" in tail.stderr
    check = run_command("check", "--postgres-url", db.relay_dsn, env={
        **env, "PGTRICKLE_RELAY_ALLOW_SECRET": "env:OTHER_TOKEN,env:X*"})
    assert "${env:GOOD_INDIRECT} is not allowed" in check.stdout
    assert "${env:OTHER_TOKEN} is not" not in check.stdout
    bad = run_command("check", "--postgres-url", db.relay_dsn, "--allow-secret", "NATS_*")
    assert bad.returncode != 0 and "env:NAME" in bad.stderr


def test_files_and_keys_of_the_host_need_consent_in_sql(db, orders, start_relay, tmp_path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "away").symlink_to(tmp_path)
    key = tmp_path / "key.pem"
    key.write_text("no key")
    nats = {"type": "nats", "url": f"nats://127.0.0.1:{refused_port()}"}
    kafka = {"type": "kafka", "brokers": f"127.0.0.1:{refused_port()}"}
    refused = {
        "sink": {"type": "file", "path": str(tmp_path / "sink")},
        "stdout": {"type": "stdout", "path": str(tmp_path / "stdout")},
        "linked": {"type": "file", "path": str(tmp_path / "allowed" / "away" / "linked")},
        "key": {**nats, "tls_cert": str(key), "tls_key": str(key)},
        "credentials": {**nats, "credentials_file": str(key)},
        "library": {**kafka, "rdkafka": {"plugin.library.paths": "/tmp/x.so"}},
        "command": {**kafka, "sasl_mechanism": "GSSAPI",
                    "rdkafka": {"sasl.kerberos.kinit.cmd": f"touch {tmp_path}/executed"}},
        "principal": {**kafka, "rdkafka": {"sasl.kerberos.principal": "$(id)"}},
        "service": {"type": "pg-inbox", "inbox_name": "x", "url": "postgresql:///x?service=y"},
        "sslkey": {"type": "pg-inbox", "inbox_name": "x", "url": f"postgresql:///x?sslkey={key}"}}
    for name, sink in refused.items():
        set_outbox(db, name, {"stream_table": "orders", "sink": sink})
    set_outbox(db, "good", to_file("orders", tmp_path / "allowed" / "good"))
    db.execute("select pgtrickle.set_relay_inbox('passwd', config => %s::jsonb, enabled => true)",
               (json.dumps({"source": {"type": "file", "path": "/etc/passwd"},
                            "sink": {"type": "inbox", "inbox_name": "passwd"}}),))
    insert_rows(db, "orders", 1)
    with start_relay(db.relay_dsn, allow_file=f"{tmp_path}/allowed/**") as relay:
        for name in [*refused, "passwd"]:
            shown = relay.wait_state(name, "misconfigured")
            assert "allow" in shown["remedy"] or "file of the relay's host" in shown["remedy"], shown
        eventually(lambda: (tmp_path / "allowed" / "good").exists(), 10)
        assert relay.pipeline("good")["last_error"] is None
        assert "--allow-file '/etc/passwd'" in relay.pipeline("passwd")["remedy"]
        assert f"--allow-secret 'file:{key}'" in relay.pipeline("key")["remedy"]
    assert not (tmp_path / "executed").exists() and not (tmp_path / "linked").exists()


def test_a_pipeline_in_sql_sends_no_password_of_the_hosts_environment(db, orders, start_relay,
                                                                      tmp_path):
    """A server that asks for the password in clear, as PostgreSQL's protocol allows."""
    listener = socket.create_server(("127.0.0.1", 0))
    port, heard = listener.getsockname()[1], []

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while True:
                    start = client.recv(4096)
                    if start[4:8] != b"\x04\xd2\x16\x2f":  # a request for TLS
                        break
                    client.sendall(b"N")
                client.sendall(b"R\0\0\0\x08\0\0\0\x03")
                heard.append(client.recv(4096))

    threading.Thread(target=serve, daemon=True).start()
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:*:from-the-file\n")
    passwords.chmod(0o600)
    set_outbox(db, "p", {"stream_table": "orders", "sink": {
        "type": "pg-inbox", "inbox_name": "x", "url": f"postgresql://u@127.0.0.1:{port}/x"}})
    set_outbox(db, "empty", {"stream_table": "orders", "sink": {
        "type": "pg-inbox", "inbox_name": "x", "url": f"postgresql://v:@127.0.0.1:{port}/x"}})
    insert_rows(db, "orders", 1)
    try:
        with start_relay(db.relay_dsn, env={"PGPASSWORD": "of-the-environment",
                                            "PGPASSFILE": str(passwords)}):
            eventually(lambda: len(heard) >= 2, 20)
    finally:
        listener.close()
    assert b"environment" not in b"".join(heard) and b"from-the-file" not in b"".join(heard)


# Literals and flags ------------------------------------------------------------------------


def test_a_literal_secret_is_accepted_with_a_warning_that_names_the_reference(
        db, orders, start_relay, tmp_path):
    set_outbox(db, "literal", with_token("as-it-is-written"))
    set_outbox(db, "header", {**with_token("${env:TOKEN}"),
                              "headers": {"Authorization": "Bearer x", "X-Row": "y"}})
    set_outbox(db, "url", {"stream_table": "orders", "sink": {
        "type": "nats", "url": f"nats://u:pw@127.0.0.1:{refused_port()}"}})
    set_outbox(db, "fine", with_token("${env:TOKEN}"))
    config = tmp_path / "relay.toml"
    config.write_text(f"""
[global]
postgres_url = "{db.relay_dsn}"
admin_token = "written-in-the-file"
""")
    env = {"TOKEN": "token-of-env"}
    with start_relay(None, env=env, config=config, allow_secret="env:TOKEN") as relay:
        relay.wait_state("literal", "retrying")
        warned = [line for line in relay.log_lines if "literal_secret" in line]
        for name, option in (("literal", "token"), ("header", "headers.Authorization"),
                             ("url", "url")):
            line, = [line for line in warned if f"[{name}]" in line]
            assert option in line and "${env:NAME}" in line and "--allow-secret" in line
        assert not [line for line in warned if "[fine]" in line]
        assert [line for line in warned if "admin_token" in line]
        assert [line for line in warned if "postgres_url" in line]
    check = run_command("check", "--json", "--config", config, "--allow-secret", "env:TOKEN",
                        env=env)
    warnings = [f for f in json.loads(check.stdout)["findings"]
                if f["warning"] and f["message"] != "no relay is running"]
    assert {f["pipeline"] for f in warnings} == {"", "literal", "header", "url"}
    assert all("${env:NAME}" in f["remedy"] for f in warnings)


def test_secret_flags_are_read_from_files_and_the_environment(db, start_relay, tmp_path):
    token, url = tmp_path / "token", tmp_path / "url"
    token.write_text("token-in-a-file\n")
    url.write_text(db.relay_dsn + "\n")
    assert "--admin-token-file" in run_command("run", "--help").stdout

    def granted(relay):
        relay.wait_up()
        return relay.get("/api/pipelines/none/pause", method="POST", headers={
            "Authorization": "Bearer token-in-a-file"})[0] not in (401, 403)

    with start_relay(None, postgres_url_file=url, admin_token_file=token) as relay:
        assert granted(relay)
        assert "secret_in_arguments" not in relay.log()
    with start_relay(None, env={"PGTRICKLE_RELAY_POSTGRES_URL_FILE": str(url),
                                "PGTRICKLE_RELAY_ADMIN_TOKEN_FILE": str(token)}) as relay:
        assert granted(relay)
    with start_relay(db.relay_dsn, admin_token="token-in-a-file") as relay:
        assert granted(relay)
        assert relay.log().count("secret_in_arguments") == 2
        with open(f"/proc/{relay.pid}/cmdline") as command:
            assert "token-in" not in command.read()
    missing = run_command("status", "--postgres-url-file", tmp_path / "none")
    assert missing.returncode != 0 and "none" in missing.stderr
    both = run_command("status", "--postgres-url-file", url, "--postgres-url", db.relay_dsn)
    assert both.returncode != 0


def test_a_misspelt_flag_does_not_print_what_follows_it():
    for arguments in (["--admin-tokn", "marked-secret"], ["--admin-tokn=marked-secret"]):
        done = run_command("status", *arguments)
        assert done.returncode == 2 and "--admin-tokn" in done.stderr
        assert "marked" not in done.stderr + done.stdout


def test_an_ambiguous_database_url_is_refused(db):
    for url in ("postgres://u:pa@ss@127.0.0.1/db", "postgres://u:pa/ss@127.0.0.1/db",
                "postgres://u/x:pass@127.0.0.1/db", "postgres://u:p?ss@127.0.0.1/db"):
        done = run_command("status", "--postgres-url", url)
        assert done.returncode != 0
        assert "%40" in done.stderr and "pa" not in done.stderr.replace("password", "")
