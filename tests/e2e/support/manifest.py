"""The list of all objects of the database side, sql/manifest.txt, from a fresh installation.

`scripts/manifest` writes it; tests/e2e/test_manifest.py compares it.
"""

import os

from .database_side import installed_from_files
from .postgres import REPOSITORY

MANIFEST = os.path.join(REPOSITORY, "sql", "manifest.txt")
STATEMENT = os.path.join(REPOSITORY, "src", "schema", "installed.sql")
HEAD = ["# What a fresh installation consists of: a line for each object, with its attributes.",
        "# Written by scripts/manifest. The program compares each database with it."]


def installed_lines(connection):
    """The lines for all that is in the schemas of the database side, read as the program does."""
    with open(STATEMENT) as source:
        statement = source.read().replace("$1::text[]", "null::text[]")
    with connection.transaction():
        connection.execute("set local search_path = pg_catalog, pg_temp; set local jit = off")
        return [line for (line,) in connection.execute(statement).fetchall()]


def recorded_lines():
    with open(MANIFEST) as manifest:
        return [line for line in manifest.read().splitlines() if not line.startswith("#")]


def recorded_objects():
    """(kind, name, attributes) of each object."""
    objects = []
    for line in recorded_lines():
        title, *attributes = line.split("\t")
        kind, name = title.split(" ", 1)
        objects.append((kind, name, dict(each.split("=", 1) for each in attributes)))
    return objects


def main():
    with installed_from_files() as connection:
        lines = installed_lines(connection)
    with open(MANIFEST, "w") as manifest:
        manifest.write("\n".join(HEAD + lines) + "\n")


if __name__ == "__main__":
    main()
