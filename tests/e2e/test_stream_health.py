"""What /health and /metrics of postgres-stream say of its subscriptions."""

import json

import pytest
from support.proxy import FaultProxy
from support.stream_database import subscribe
from support.stream_program import (StreamProgram, configure, connection, insert,  # noqa: F401
                                    stream_home, stream_program_server, subscribe_orders,
                                    wait_running, wait_trouble)
from support.waiting import eventually


@pytest.fixture(params=["wal", "table"])
def program(request, stream_home, tmp_path):  # noqa: F811
    configure(tmp_path, stream_home, {"type": "memory"}, {"reader": request.param})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        yield program


def number(program, name):
    return program.metric(name, pipeline="stream-1")


def test_events_that_could_not_be_made_are_told_until_they_are_made(program, stream_home):  # noqa: F811
    insert(stream_home)
    program.wait_metric("memory_messages", 1, pipeline="stream-1")
    stream_home.execute("alter table orders rename note to remark")
    stream_home.execute("insert into orders (remark) values ('a'), ('b')")
    wait_trouble(program, '"degraded"', "the events of 2 changes could not be made",
                 "orders (2)", "pgstream.retry_failed()")
    eventually(lambda: number(program, "failed_events") == 2)
    eventually(lambda: "failed_events: the events of 2 changes" in program.log(), message=program.log)
    stream_home.execute("update pgstream.subscriptions set column_names = '{id, remark}'")
    assert stream_home.one("select pgstream.retry_failed()") == 2
    program.wait_metric("memory_messages", 3, pipeline="stream-1")
    program.wait_healthy(deadline=20)
    eventually(lambda: number(program, "failed_events") == 0)


def test_a_subscription_without_a_table_is_told_until_it_is_gone(program, stream_home):  # noqa: F811
    stream_home.execute("create table gone (id int)")
    subscribe(stream_home, key="of the gone", table="gone")
    stream_home.execute("drop table gone")
    wait_trouble(program, '"degraded"', "of the gone", "public.gone", "the table does not exist",
                 "pgstream.subscription_problems(1)")
    stream_home.execute("delete from pgstream.subscriptions where table_name = 'gone'")
    program.wait_healthy(deadline=20)


def test_partitions_and_events_without_one_are_counted(program, stream_home):  # noqa: F811
    eventually(lambda: number(program, "partitions_ahead") == 3, 20)
    stream_home.execute("insert into pgstream.events_overflow (id, payload, stream_id, created_at)"
                        " values (gen_random_uuid(), '{}', 1, now())")
    eventually(lambda: number(program, "overflow_rows") == 1, 20)
    assert number(program, "backlog_transactions") is not None


def test_a_server_that_does_not_answer_is_told_before_the_stream_has_ended(
        stream_program_server, stream_home, tmp_path):  # noqa: F811
    with FaultProxy(stream_program_server.port) as proxy:
        configure(tmp_path, stream_home, {"type": "memory"},
                  {"pg_connection": connection(stream_home, port=proxy.port)})
        with StreamProgram(tmp_path) as program:
            wait_running(program)
            proxy.stall()
            eventually(lambda: "no answer in time" in program.log(), 30)
            health = json.loads(program.get("/health")[1])
            assert health["status"] == "unhealthy" and health["pipelines_owned"] == 0, health
            proxy.restore()
            wait_running(program)
