"""The table of all functions in docs/security.md, from a fresh installation.

`scripts/function-table` writes it; tests/e2e/test_install.py compares it.
"""

import os

from .database_side import installed_from_files
from .postgres import REPOSITORY

DOCUMENT = os.path.join(REPOSITORY, "docs", "security.md")
BEGIN = "<!-- functions: written by scripts/function-table -->"
END = "<!-- end of functions -->"

FUNCTIONS = """
    select case n.nspname when 'pgtrickle' then '' else n.nspname || '.' end || p.proname
           || '(' || pg_get_function_identity_arguments(p.oid) || ')',
           case when p.prosecdef then 'owner' else 'caller' end,
           p.proowner::regrole::text,
           case when exists (select from unnest(p.proconfig) c
                             where c in ('search_path=pg_catalog, pg_temp', 'search_path=""'))
                then 'pinned' else 'the caller''s' end,
           coalesce((select string_agg(distinct case a.grantee when 0 then 'PUBLIC'
                                                else a.grantee::regrole::text end, ', ')
                     from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                     where a.grantee <> p.proowner), '')
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname like 'pgtrickle%'
    order by n.nspname collate "C", p.proname collate "C",
             pg_get_function_identity_arguments(p.oid) collate "C"
"""


def function_table(connection):
    """The lines of the table, for a database in which nothing has been done but to install."""
    lines = ["| function | runs as | owner | search_path | may be called by |",
             "|---|---|---|---|---|"]
    for row in connection.execute(FUNCTIONS).fetchall():
        signature, *rest = row
        cells = " | ".join(cell.replace("pgtrickle_", "") for cell in rest)
        lines.append(f"| `{signature}` | {cells} |".replace("|  |", "| |"))
    return lines


def documented_table():
    with open(DOCUMENT) as document:
        text = document.read()
    return text.split(BEGIN)[1].split(END)[0].strip().splitlines()


def write(lines):
    with open(DOCUMENT) as document:
        head, rest = document.read().split(BEGIN)
    with open(DOCUMENT, "w") as document:
        document.write(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])


def main():
    with installed_from_files() as connection:
        write(function_table(connection))


if __name__ == "__main__":
    main()
