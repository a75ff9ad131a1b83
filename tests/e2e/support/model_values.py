"""Types, and expressions for values of them. No expression depends on the moment or the database."""

INTS = ["0", "1", "-1", "7", "32767", "-32768", "null"]
FLOATS = ["0", "0.30000000000000004", "2/3.0", "'-0'", "0.1", "1.0/3", "1e-30", "123456.789", "'NaN'", "'Infinity'", "'-Infinity'",
          "3.4e38", "null"]
TEXTS = ["''", "'a'", "'it''s'", "'ü\u20ac\U0001f600'", "E'\\\\x'", "E'\\t\\n\\u0001'", "'NULL'",
         "'null'", "'{}'", "'\"'", "'%s $1 {number} {}'", "repeat('x', 3000)", "null",
         "' '", "'<&>'", "'|'"]
JSONS = ["'{}'", "'null'", "'[1, 2.50, 1e3]'", "'{\"a\" : 1,  \"a\": 2}'", "'\"x\"'", "null",
         "'{\"b\": {\"c\": [null, true]}}'", "repeat('[', 40)||repeat(']', 40)",
         "('\"'||repeat('y', 3000)||'\"')"]
ODD_JSONS = ["E'\"\\\\u0000\"'", "E'{\"a\": \"\\\\ud800\"}'", "'1e400000'", "E'{\"\\\\u0000\": 1}'",
             "E'[\"\\\\\\\\u0000\"]'"]
STAMPS = ["'2024-02-29 23:59:59.999999'", "'infinity'", "'-infinity'", "'0044-03-15 BC'",
          "'20000-01-01 12:00'", "'1900-01-01 00:00:01'", "'2024-07-01 12:00'", "null"]

# type: expressions, each is cast to the type.
BUILT_IN = {
    "smallint": INTS, "integer": INTS + ["2147483647"],
    "bigint": INTS + ["9223372036854775807", "-9223372036854775808"],
    "real": FLOATS, "double precision": FLOATS + ["2.2250738585072014e-308", "1e300"],
    "numeric": ["0", "1.500", "-0.00", "1234567890123456789012345678901234567890.12345", "'NaN'",
                "'Infinity'", "1e-20", "null"],
    "numeric(10,2)": ["0", "1.5", "-99999999.99", "null"],
    "text": TEXTS, "varchar(4000)": TEXTS, "char(5)": ["'a'", "''", "'abcde'", "null"],
    "name": ["'n'", "'Odd \"name'", "null"], '"char"': ["'c'", "''", "null"],
    "boolean": ["true", "false", "null"],
    "date": ["'2024-02-29'", "'infinity'", "'0044-03-15 BC'", "'01-02-2003'", "null"],
    "time": ["'00:00'", "'24:00'", "'12:34:56.789012'", "null"],
    "timetz": ["'12:00+05:30'", "'00:00-11'", "null"],
    "timestamp": STAMPS, "timestamptz": STAMPS + ["'2024-10-27 01:30+00'"],
    "interval": ["'1 year 2 mons -3 days 04:05:06.789'", "'-1 day'", "'0'", "'1000 hours'",
                 "'-1.5 years'", "null"],
    "bytea": ["'\\x00ff27'", "''", "'a'", "null"],
    "uuid": ["'00000000-0000-0000-0000-000000000001'", "null"],
    "inet": ["'10.0.0.1/8'", "'::1'", "'10.0.0.1'", "null"], "cidr": ["'10.0.0.0/8'", "null"],
    "macaddr": ["'08:00:2b:01:02:03'", "null"], "macaddr8": ["'08:00:2b:01:02:03:04:05'", "null"],
    "bit(5)": ["B'10101'", "null"], "varbit": ["B''", "B'1'", "repeat('1', 300)", "null"],
    "money": ["12.34", "-0.5", "1234567.89", "null"],
    "json": JSONS, "jsonb": JSONS,
    "point": ["'(1.1,0.1)'", "'(NaN,1e-300)'", "null"], "line": ["'{1,2,3.3}'", "null"],
    "lseg": ["'[(0,0.1),(1,1)]'", "null"], "box": ["'(1,1),(0.1,0)'", "null"],
    "path": ["'[(0,0),(1.1,1)]'", "'((0,0),(1,1))'", "null"],
    "polygon": ["'((0,0),(0.1,1),(1,0))'", "null"], "circle": ["'<(0.1,0),1>'", "null"],
    "tsvector": ["'a:1A fat:2'", "null"], "tsquery": ["'a & !b'", "null"],
    "int4range": ["'[1,5)'", "'empty'", "'(,)'", "null"], "numrange": ["'[0.1,0.2]'", "null"],
    "tstzrange": ["'[2024-01-01 12:00+00,2024-07-01 12:00+00)'", "'(,infinity)'", "null"],
    "daterange": ["'[2024-01-01,2024-02-01)'", "null"],
    "tsrange": ["'[2024-01-01 12:00,)'", "null"],
    "int4multirange": ["'{[1,3),[5,7)}'", "'{}'", "null"],
    "tstzmultirange": ["'{[2024-01-01 12:00+00,2024-01-02)}'", "null"],
    "oid": ["1", "4294967295", "null"],
    # What these name is never renamed: they are written as the name that there is at the moment.
    "regclass": ["'pg_class'", "'app.audit'", "'information_schema.tables'", "null"],
    "regtype": ["'integer'", "'app.pair'", "null"],
    "regproc": ["'now'", "null"], "regprocedure": ["'abs(integer)'", "null"],
    "regrole": ["'model_owner'", "null"], "regnamespace": ["'app'", "null"],
    "regoper": ["'!!'", "null"], "regconfig": ["'simple'", "null"],
    "pg_lsn": ["'16/B374D848'", "null"], "pg_snapshot": ["'10:20:10,14,15'", "null"],
    "xid8": ["'42'", "null"], "xid": ["'42'", "null"], "tid": ["'(1,2)'", "null"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'", "null"], "int2vector": ["'1 2'", "null"],
    "oidvector": ["'1 2'", "null"],
    "integer[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'", "null"],
    "text[]": ["'{a,\"NULL\",NULL,\"b,c\"}'", "'{}'", "null"],
    "numeric[]": ["'{1.50,NaN}'", "null"], "float8[]": ["'{0.1,Infinity}'", "null"],
    "timestamptz[]": ["'{2024-01-01 12:00+00,NULL}'", "null"], "bytea[]": ["'{\"\\\\x00ff\"}'", "null"],
    "interval[]": ["'{1 day,-1 mon}'", "null"], "date[]": ["'{2024-01-02}'", "null"],
    "jsonb[]": ["array['{\"a\": 1}'::jsonb, null]", "null"],
    "money[]": ["'{1.5}'", "null"], "int4range[]": ["'{\"[1,2)\",NULL}'", "null"],
    "json[]": ["array['{\"a\":  1}'::json, null]", "null"],
}

# Made in schema app by SETUP.
OWN = {
    "app.mood": ["'sad'", "'ok'", "'it''s \"great\"'", "null"],
    "app.mood[]": ["'{sad,NULL,ok}'", "'{}'", "'{{sad,ok},{ok,sad}}'", "null"],
    "app.positive": ["1", "12.50", "null"],
    "app.moods": ["'{ok,sad}'", "'{ok,NULL}'", "null"],
    "app.at": ["'2024-07-01 12:00+00'", "null"],
    "app.floats": ["'[0.1,0.30000000000000004)'", "'empty'", "null"],
    "app.floats[]": ["'{\"[0.1,0.2)\",NULL}'", "null"],
    "app.times": ["'[2024-01-01 12:00+00,2024-07-01 12:00+00)'", "null"],
    "app.pair": ["row(1, 'a')", "row(null, null)", "row(2, 'ok')", "null"],
    "app.mixed": ["row('sad', 0.1::float8 + 0.2, '2024-07-01 12:00+00', '1 day -2 hours', 12.5, "
                  "'\\x00ff', array['ok', null]::app.mood[])",
                  "row(null, 'NaN', null, null, null, null, null)", "null"],
    "app.pair[]": ["array[row(1, 'a')::app.pair, null]", "'{}'", "null"],
    "app.mixed[]": ["array[row('ok', 0.1, '2024-07-01 12:00+00', '1 mon', 1, null, null)"
                    "::app.mixed, null]", "null"],
    "app.holder": ["row(row('sad', 1e-30, 'infinity', '-1 day', 1, null, '{}'), '{1.10}', "
                   "'{\"a\":  1}')", "null"],
    "app.pair_at": ["row(1, 'b')", "null"],
}

SETUP = """
create type app.mood as enum ('sad', 'ok', 'it''s "great"');
create domain app.positive as numeric check (value > 0);
create domain app.moods as app.mood[];
create domain app.at as timestamptz;
create type app.floats as range (subtype = float8);
create type app.times as range (subtype = timestamptz);
create type app.pair as (a int, b text);
create domain app.pair_at as app.pair;
create type app.mixed as (m app.mood, f float8, t timestamptz, i interval, c money, b bytea,
                          l app.mood[]);
create type app.holder as (h app.mixed, n numeric[], j json);
"""

# Settings that change how values are read or written, and others that must not matter.
SETTINGS = {
    "extra_float_digits": ["-15", "0", "1", "3"],
    "datestyle": ["'ISO, MDY'", "'German'", "'SQL, DMY'", "'Postgres, MDY'"],
    "intervalstyle": ["postgres", "sql_standard", "postgres_verbose", "iso_8601"],
    "bytea_output": ["hex", "escape"],
    "timezone": ["'UTC'", "'Asia/Kolkata'", "'America/New_York'", "'<+03>-3'"],
    "lc_monetary": ["'C'", "'C.UTF-8'"],
    "quote_all_identifiers": ["on", "off"],
    "standard_conforming_strings": ["off", "on"],
    "backslash_quote": ["off", "on", "safe_encoding"],
    "array_nulls": ["off", "on"],
    "transform_null_equals": ["on", "off"],
    "xmlbinary": ["hex", "base64"],
    "search_path": ["evil, app, public", "app, public", "''", "app", "pg_temp, app",
                    "evil, pg_catalog, app"],
    "default_transaction_isolation": ["'serializable'", "'repeatable read'", "'read committed'"],
    "row_security": ["off", "on"],
    "plan_cache_mode": ["force_generic_plan", "force_custom_plan", "auto"],
    "plpgsql.extra_errors": ["'all'", "'none'"],
    "plpgsql.extra_warnings": ["'all'", "'none'"],
    "enable_seqscan": ["off", "on"], "enable_nestloop": ["off", "on"],
    "enable_hashjoin": ["off", "on"], "enable_sort": ["off", "on"],
    "work_mem": ["'64kB'", "'4MB'"], "jit_above_cost": ["0", "100000"],
    "constraint_exclusion": ["on", "partition"], "default_toast_compression": ["pglz"],
    "from_collapse_limit": ["1", "8"], "lc_messages": ["'C'"], "client_min_messages": ["notice"],
    "check_function_bodies": ["off", "on"], "synchronous_commit": ["off", "on"],
    "escape_string_warning": ["off"], "gin_fuzzy_search_limit": ["0"],
    "debug_parallel_query": [], "xmloption": ["document", "content"],
    "default_transaction_deferrable": ["on", "off"], "statement_timeout": ["0"],
}
WRITTEN_DIFFERENTLY = ["extra_float_digits", "datestyle", "intervalstyle", "bytea_output", "timezone",
                       "quote_all_identifiers", "search_path", "array_nulls"]
SUPERUSER_SETTINGS = {
    "session_replication_role": ["replica", "origin", "local"],
    "plpgsql.variable_conflict": ["use_column", "use_variable", "error"],
}
