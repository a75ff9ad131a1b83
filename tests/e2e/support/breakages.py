"""The table of breakages: what breaks, the cause and the remedy that must be named, where, and within
how many seconds. tests/e2e/test_breakages.py breaks each of them; docs/operations.md shows the table.

`scripts/breakage-table` writes it there.
"""

import os
import re
from dataclasses import dataclass

from .postgres import REPOSITORY

DOCUMENT = os.path.join(REPOSITORY, "docs", "operations.md")
BEGIN = "<!-- breakages: written by scripts/breakage-table -->"
END = "<!-- end of breakages -->"
PLACES = ("log", "/health", "check", "status", "SQL")  # SQL: the statement is refused


@dataclass(frozen=True)
class Breakage:
    scene: str      # which of support/breakage_scenes.py breaks it
    what: str
    cause: str      # … stands for anything; " / " between texts of different places
    remedy: str
    places: str     # of PLACES, with spaces between them
    within: int     # seconds
    about: tuple = ()  # the pipelines of which it must be said; none: of the whole


WHERE_A_PIPELINE_SHOWS = "log /health status"
NEW_OUTBOX = "SELECT pgtrickle.disable_outbox('…'); SELECT pgtrickle.enable_outbox('…');"
INIT = "pgtrickle-relay init"
REACH = "check host and port in …, that …, and that this machine reaches it"
SESSION_POOL = "connect to PostgreSQL directly, or to a pool in session mode"
OTHER_VERSION = "where this program is the newer one: pgtrickle-relay init; else upgrade the program"

BREAKAGES = [
    # Destinations, all of one relay.
    Breakage("sinks", "NATS: the stream is missing", "has no stream '…'", "nats stream add …",
             "log /health check status", 10, ("no stream",)),
    Breakage("sinks", "the broker's password is wrong (NATS)", "refuses the credentials",
             "correct user and password", "log /health check status", 10, ("nats password",)),
    Breakage("sinks", "the broker's password is wrong (Redis)", "WRONGPASS",
             "correct user and password", "log /health check status", 10, ("redis password",)),
    Breakage("sinks", "the broker's host has no address",
             "cannot connect to NATS at no-such-host.invalid:4222",
             "check the host in url, and this machine's name resolution",
             "log /health check status", 20, ("host",)),
    Breakage("sinks", "the broker is away", "cannot connect to …", REACH,
             "log /health check status", 10, ("away",)),
    Breakage("sinks", "of two servers one is away and one refuses the password",
             "WRONGPASS … cannot connect to", "correct user and password; and check host and port",
             "log /health check status", 10, ("one of two",)),
    Breakage("sinks", "the CA is not that of the server's certificate", "not trusted: …issuer",
             "set tls_ca to …the authority that signed it", "log /health check status", 10,
             ("nats ca",)),
    Breakage("sinks", "the server's certificate has expired", "certificate has expired",
             "renew the server's certificate", "log /health check status", 10,
             ("nats expired", "redis expired", "webhook expired")),
    Breakage("sinks", "webhook: 401", "answered 401", "look at the credentials",
             "log /health check status", 10, ("401",)),
    Breakage("sinks", "webhook: 404", "answered 404", "look at the path of url",
             "log /health check status", 10, ("404",)),
    Breakage("sinks", "the sink is slower than its timeout", "did not answer within …",
             "look at the server, or raise timeout", WHERE_A_PIPELINE_SHOWS, 15, ("slow",)),
    Breakage("sinks", "the disk of the file sink is full", "No space left on device", "make room",
             WHERE_A_PIPELINE_SHOWS, 10, ("full",)),
    Breakage("sinks", "a message is too large", "bytes with headers, and … takes at most …",
             "raise the server's max_payload, or lower delta_max_rows / "
             "pgtrickle-relay dlq list …, then retry or discard them", "log check", 10,
             ("too large",)),
    Breakage("sinks", "every message is in the dead letters",
             "messages are in the dead letters, the last since …",
             "pgtrickle-relay dlq list …, then retry or discard them", "check", 15, ("refused",)),
    Breakage("sinks", "every message is rejected", "every message since … was rejected, …",
             "…; then `pgtrickle-relay dlq retry --all …`", WHERE_A_PIPELINE_SHOWS, 20,
             ("refused",)),
    Breakage("sinks", "rows of a claim check were deleted before they were delivered",
             "are in the dead letters because the rows of their claim checks were deleted … / "
             "announces … rows, and those from … to … are not there",
             "SELECT pgtrickle.outbox_full_refresh( / the table itself still has what is current",
             WHERE_A_PIPELINE_SHOWS, 20, ("purged",)),
    Breakage("sinks", "a pipeline is paused, and records wait",
             "it is paused since …, and records wait", "`pgtrickle-relay pipelines resume …`",
             WHERE_A_PIPELINE_SHOWS, 20, ("paused",)),
    Breakage("sinks", "two pipelines on one file, consumer or port",
             "it and the pipeline … use the …", "give each pipeline a … of its own", "check", 10,
             ("second",)),
    Breakage("sinks", "an unknown variable in a template", "unknown variable {…}",
             "known are {stream_table}", "log /health check status", 10, ("template",)),
    Breakage("sinks", "a key of the configuration that is none", "there is no option \"adress\"",
             "Known here: …", "log /health check status", 10, ("key",)),
    Breakage("sinks", "a pipeline is disabled", "disabled", "pgtrickle-relay pipelines enable …",
             "status", 10, ("off",)),
    Breakage("syntax", "a file of the configuration that is no TOML",
             "…relay.toml:2:…: Error while parsing", "Correct the file; nothing of it was taken.",
             "log check", 10),
    Breakage("syntax", "a pipeline in SQL: a key that is none", "there is no option \"batch_sise\"",
             "Nothing was changed. Correct the configuration and call again.", "SQL", 10),
    Breakage("syntax", "a pipeline in SQL: a value of another type", "batch_size",
             "Nothing was changed. Correct the configuration and call again.", "SQL", 10),
    # The database side, under a running relay.
    Breakage("database", "SELECT on an outbox was revoked",
             "the role … may not read pgtrickle.…", "GRANT SELECT ON pgtrickle.… TO pgtrickle_relay;",
             "log /health check status", 10, ("revoked",)),
    Breakage("database", "the table of an outbox was dropped",
             "outbox … is gone: its table was dropped", NEW_OUTBOX, "log /health check status", 10,
             ("dropped",)),
    Breakage("database", "an outbox was rewound: the position is ahead of its sequence",
             "was rewound: its newest id is …, and … was passed / "
             "its position … is beyond the newest row of …",
             "resume … --accept-loss", "log /health check status", 10, ("rewound",)),
    Breakage("database", "a captured table was replaced by another",
             "for the table that had this name is now …", "SELECT pgtrickle.rebind_outbox(",
             "log /health check status", 15, ("replaced",)),
    Breakage("database", "a function of the database side is missing",
             "function pgtrickle.relay_commit_position(… does not exist / "
             "function pgtrickle.relay_commit_position(…) is missing", INIT,
             "log /health check status", 10, ("fine",)),
    Breakage("database", "a function of the database side is not the one that was installed",
             "function …: the body differs", INIT, "check", 10),
    Breakage("database", "the database side is older than the program, or newer",
             "the database side is of another version than this program", OTHER_VERSION, "check",
             10),
    Breakage("database", "transactions have another isolation level by default (it works)",
             "transactions are serializable by default",
             "RESET default_transaction_isolation; …where that was not meant", "check", 10),
    Breakage("database", "the refresh of a stream table fails",
             "stream table … cannot be refreshed: … / stream table … is suspended after failures: …",
             "mend the query or its tables (SELECT pgtrickle.refresh_stream_table('…') shows the "
             "error)", "log /health", 20),
    Breakage("nothing runs", "no relay is running", "o relay is running",
             "start one: pgtrickle-relay run / until `pgtrickle-relay run` is started",
             "check status", 10),
    # The way to the database, and its server.
    Breakage("pooler", "PgBouncer in transaction mode", "a pooler gives each transaction another "
             "session", SESSION_POOL, "log /health check status", 10),
    Breakage("sessions", "the database has no session left", "too many connections",
             "raise max_connections or the CONNECTION LIMIT", "log /health check status", 10),
    Breakage("standby", "the server is a read-only standby",
             "this server is a standby: nothing can be written here",
             "target_session_attrs=read-write", "log /health check status", 10),
    Breakage("certificate", "PostgreSQL's certificate has expired, or is of another authority",
             "certificate verify failed", "as sslrootcert in the PostgreSQL URL or as "
             "trusted_root_certs; where that is given, look whether the certificate has expired",
             "log /health check status", 10),
    # Limits of the process.
    Breakage("descriptors", "the limit of file descriptors", "no file descriptor left of its …",
             "raise the limit of open files of the process", WHERE_A_PIPELINE_SHOWS, 15),
    Breakage("memory", "the limit of memory: a message does not fit",
             "out of memory (its address space may take … MiB)",
             "raise the limit of memory of the process", WHERE_A_PIPELINE_SHOWS, 15, ("large",)),
    Breakage("threads", "the limit of memory or threads: pipelines cannot start",
             "this process can start no further thread", "raise the limits of memory and of threads",
             WHERE_A_PIPELINE_SHOWS, 15),
    # What starts slowly: LONG=1.
    Breakage("brokers", "Kafka: the topic is missing", "refuses a message for topic '…' / "
             "topic '…': … Unknown topic or partition",
             "create the topic, or correct topic / kafka-topics.sh … --create --topic …; or correct "
             "topic", "log /health check status", 60, ("topic",)),
    Breakage("brokers", "RabbitMQ: no queue takes the message", "no queue takes the routing key",
             "bind a queue to it", WHERE_A_PIPELINE_SHOWS, 30, ("unroutable",)),
    Breakage("brokers", "RabbitMQ: the queue of a source is missing", "has no queue '…'",
             "correct queue, or set declare", "log /health check status", 30, ("queue",)),
    Breakage("brokers", "the broker's password is wrong (RabbitMQ)", "ACCESS_REFUSED",
             "correct user and password", "log /health check status", 30, ("rabbitmq password",)),
    Breakage("brokers", "SQS: the queue is missing", "QueueDoesNotExist",
             "look at queue_url, region and endpoint, or make the queue / aws sqs create-queue "
             "--queue-name …; or correct queue_url", "log /health check status", 30, ("sqs",)),
]


def pattern(text):
    """A regular expression for a text of the table."""
    choices = [".*?".join(re.escape(part) for part in choice.split("…"))
               for choice in text.split(" / ")]
    return re.compile("|".join(choices), re.DOTALL)


def lines():
    """The table as docs/operations.md has it."""
    def code(text):
        return " / ".join(f"`{choice}`" if "`" not in choice else f"`` {choice} ``"
                          for choice in text.split(" / "))
    rows = ["| breakage | cause named | where | within | remedy |", "|---|---|---|---|---|"]
    for each in BREAKAGES:
        where = ", ".join(each.places.split())
        rows.append(f"| {each.what} | {code(each.cause)} | {where} | {each.within} s | "
                    f"{code(each.remedy)} |")
    return rows


def documented_lines():
    with open(DOCUMENT) as document:
        return document.read().split(BEGIN)[1].split(END)[0].strip().splitlines()


def main():
    with open(DOCUMENT) as document:
        head, rest = document.read().split(BEGIN)
    with open(DOCUMENT, "w") as document:
        document.write(head + BEGIN + "\n" + "\n".join(lines()) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
