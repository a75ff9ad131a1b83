"""The configuration of postgres-stream: its errors, and what the environment overrides."""

import pytest
from support.postgres import PASSWORD, TlsServer
from support.stream_program import (StreamProgram, configure, connection, run,  # noqa: F401
                                    stream_home, stream_program_server, wait_running)
from support.tls import Authority

CONNECTION = "{host: h, name: d, username: u}"


@pytest.mark.parametrize("text, said", [
    ("stream: [", ["config.yaml:1:", "not"]),
    ("- stream", ["config.yaml:1:1", "keys and values"]),
    ("", ["there is no stream", "pg_connection"]),
    ("sink: {type: memory}", ["there is no stream"]),
    (f"stream:\n  id: 1\n  pg_connection: {CONNECTION}\n", ["the sink has no type", "memory"]),
    (f"strem: {{}}\nstream: {{id: 1, pg_connection: {CONNECTION}}}\nsink: {{type: memory}}",
     ["config.yaml:1:8", '"strem"', '"stream"']),
    (f"stream:\n  id: one\n  pg_connection: {CONNECTION}\nsink: {{type: memory}}",
     ["config.yaml:2:7", "id", "whole number"]),
    ("stream:\n  id: 1\n  pg_connection:\n    hots: h\n    name: d\n    username: u\n"
     "sink: {type: memory}", ["config.yaml:4:11", "pg_connection.hots", "pg_connection.host"]),
    ("stream:\n  id: 1\n  pg_connection: postgres://u@h/d\nsink: {type: memory}",
     ["config.yaml:3:18", "pg_connection must hold keys"]),
    (f"stream: {{id: 1, pg_connection: {CONNECTION}, reader: tabel}}\nsink: {{type: memory}}",
     ['"table"', "config.yaml:1:"]),
    (f"stream: {{id: 1, pg_connection: {CONNECTION}, failover_after: soon}}\n"
     "sink: {type: memory}",
     ["failover_after", "duration"]),
    (f"stream: {{id: 1, pg_connection: {CONNECTION}}}\nsink: {{type: memry}}",
     ["memry", "memory"]),
    (f"stream: {{id: 1, pg_connection: {CONNECTION}}}\nsink: {{type: http, ulr: 'http://x'}}",
     ["config.yaml:2:25", "ulr", '"url"']),
    (f"stream: {{id: 1, id: 2, pg_connection: {CONNECTION}}}\nsink: {{type: memory}}",
     ["config.yaml:1:17", "twice"]),
    (f"streams:\n- {{id: 1, pg_connection: {CONNECTION}}}\n- {{id: 1, pg_connection: {CONNECTION}}}"
     "\nsink: {type: memory}", ["two streams with id 1"]),
    ("stream:\n  id: 1\n  pg_connection: {host: h, name: d, username: u,\n"
     "    password: '${NOT_SET_HERE}'}\nsink: {type: memory}",
     ["config.yaml:4:15", "NOT_SET_HERE", "is not set"]),
    (f"stream: {{id: 1, pg_connection: {CONNECTION}}}\nsink: {{type: memory}}\nmetrics_adr: x",
     ["config.yaml:3:14", "metrics_addr"]),
])
def test_a_mistake_is_named_with_its_place(tmp_path, text, said):
    (tmp_path / "config.yaml").write_text(text)
    done = run(tmp_path)
    assert done.returncode == 3, done
    for word in said:
        assert word in done.stderr, done.stderr
    checked = run(tmp_path, "check")
    assert checked.returncode == 3 and all(word in checked.stdout for word in said), checked


@pytest.mark.parametrize("text", [
    f"stream: {{id: 0, pg_connection: {CONNECTION}}}\nsink: {{type: memory}}",
    f"stream: {{pg_connection: {CONNECTION}}}\nsink: {{type: memory}}",
    f"stream: {{id: 1, pg_connection: {CONNECTION}}}\n"
    "sink: {type: http, url: 'https://x.test', headers: {Authorization: 'Bearer ${NOT_SET_HERE}'}}",
], ids=["id out of range", "no id", "header"])
def test_a_mistake_is_told_once(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    checked = run(tmp_path, "check")
    assert checked.returncode == 3 and checked.stdout.count("PROBLEM") == 1, checked


def test_a_missing_file_is_named(tmp_path):
    done = run(tmp_path, "--config", "other.yaml")
    assert done.returncode == 3 and "other.yaml cannot be read" in done.stderr
    assert "docs/running-postgres-stream.md" in done.stderr


def test_values_come_from_the_environment(stream_home, tmp_path):
    (tmp_path / "other.yaml").write_text(f"""
stream:
  id: ${{ID_OF_STREAM}}
  pg_connection:
    host: 127.0.0.1
    port: ${{PORT_OF_DATABASE}}
    name: {stream_home.name}
    username: postgres
    password: ${{SECRET}}
sink:
  type: nothing
""")
    env = {"ID_OF_STREAM": "3", "PORT_OF_DATABASE": str(stream_home.server.port),
           "SECRET": PASSWORD, "POSTGRES_STREAM__STREAM__ID": "2",
           "POSTGRES_STREAM__SINK__TYPE": "memory"}
    with StreamProgram(tmp_path, "--config", "other.yaml", env=env) as program:
        wait_running(program, "stream-2")
    assert stream_home.execute("select id from pgstream.streams") == [(2,)]


def test_an_override_that_leads_nowhere_is_named(stream_home, tmp_path):
    configure(tmp_path, stream_home, {"type": "memory"})
    done = run(tmp_path, env={"POSTGRES_STREAM__STREAM__IDD": "2",
                              "POSTGRES_STREAM__STREAM__ID__X": "2"})
    assert done.returncode == 3
    assert "POSTGRES_STREAM__STREAM__IDD" in done.stderr and '"id"' in done.stderr
    assert "POSTGRES_STREAM__STREAM__ID__X" in done.stderr


def test_help_and_version(tmp_path):
    assert "--config" in run(tmp_path, "--help").stdout
    assert run(tmp_path, "--version").stdout.startswith("postgres-stream ")
    assert run(tmp_path, "--nothing").returncode == 2


def test_tls(stream_home, tmp_path):
    """Certificate and name of the server are checked."""
    authority = Authority()
    server = TlsServer(authority).start()
    try:
        database = server.create_database(template="template0")

        def configured(target=database, roots=None, enabled=True):
            tls = {"enabled": enabled} | ({"trusted_root_certs": roots} if roots else {})
            configure(tmp_path, target, {"type": "memory"},
                      {"pg_connection": connection(target, tls=tls)})
            return run(tmp_path, "check")
        with open(authority.ca) as certificate:
            for roots in (authority.ca, certificate.read()):
                assert configured(roots=roots).returncode == 0
                with StreamProgram(tmp_path) as program:
                    wait_running(program)
                    assert database.one("select bool_and(ssl) from pg_stat_ssl join pg_stat_activity "
                                        "using (pid) where application_name like 'postgres-stream%'")
        for roots in (None, Authority("another").ca):
            refused = configured(roots=roots)
            assert refused.returncode == 3 and "certificate verify failed" in refused.stdout, refused
            assert "trusted_root_certs" in refused.stdout
        assert configured(enabled=False).returncode == 0
    finally:
        server.stop_immediate()
    refused = configured(stream_home, roots=authority.ca)
    assert refused.returncode == 3 and "set ssl = on in the server" in refused.stdout, refused
