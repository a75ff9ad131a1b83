"""Installing the database side: by `init`, or from the files of sql/ as they are."""

import contextlib
import glob
import hashlib
import os
import re
import subprocess

import psycopg

from .postgres import REPOSITORY, PostgresServer
from .relay import clean_environment, relay_binary, run_command

FOLDERS = ("before", "migrations", "functions", "after")  # in the order in which init runs them
OPTION_ROWS = "functions/106_relay_option_rows.sql"  # written by the program, from its tables


def install(dsn):
    """The real `init` where there is a binary, else the files of sql/ (RELAY_INIT=files too)."""
    if relay_binary() and os.environ.get("RELAY_INIT") != "files":
        done = run_command("init", "--postgres-url", dsn)
        assert done.returncode == 0, f"init failed:\n{done.stdout}{done.stderr}"
    else:
        install_from_files(dsn)


def option_rows():
    """The statements that write the catalogue of options; none where there is no binary."""
    if not relay_binary():
        return ""
    printed = subprocess.run([relay_binary(), "init", "--dry-run"], env=clean_environment(),
                             capture_output=True, text=True, check=True).stdout
    return re.search(rf"^-- {OPTION_ROWS}\n(.*?)^-- functions/", printed, re.M | re.S)[1]


def install_from_files(dsn):
    """Runs the files of sql/ as init does, in one transaction; a migration only once."""
    files = {OPTION_ROWS: option_rows()}
    for path in glob.glob(os.path.join(REPOSITORY, "sql", "*", "*.sql")):
        with open(path) as source:
            files[os.path.relpath(path, os.path.join(REPOSITORY, "sql"))] = source.read()
    assert len(files) > 1, "there are no files in sql/"
    with psycopg.connect(dsn) as connection:
        for name in sorted(files, key=lambda name: (FOLDERS.index(name.split("/")[0]), name)):
            try:
                if not name.startswith("migrations/") or is_new(connection, name, files[name]):
                    connection.execute(files[name])
            except psycopg.Error as error:
                where = getattr(error.diag, "statement_position", None)
                raise AssertionError(f"{name} does not install: {error} (position {where}; context: "
                                     f"{error.diag.context})") from error


@contextlib.contextmanager
def installed_from_files():
    """A connection to a new database of a server of its own, with what the files of sql/ install."""
    server = PostgresServer("fresh").start()
    try:
        with server.connect() as connection:
            connection.execute("create database fresh")
        install_from_files(server.dsn("fresh"))
        with server.connect("fresh") as connection:
            yield connection
    finally:
        server.stop_immediate()


def is_new(connection, migration, text):
    """Whether a migration was not applied yet; notes that it is now."""
    name = os.path.basename(migration)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return connection.execute("insert into pgtrickle_internal.migrations (number, name, checksum, program) "
                              "values (%s, %s, %s, 'files') on conflict do nothing",
                              (int(name[:4]), name, checksum)).rowcount == 1
