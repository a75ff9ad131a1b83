-- Who may call the functions of 150_json_values.sql. (That file is installed for postgres-stream as
-- well, into a schema of its own, where every role may call them.)

revoke all on function
  pgtrickle_json.pin_sql(text[], text), pgtrickle_json.by_name(oid),
  pgtrickle_json.fits(oid, text, text, oid[]),
  pgtrickle_json.key_marks(oid, smallint[], text[], text)
  from public;
-- What capture functions call, and administrators with their own rights, by what they call.
grant execute on function
  pgtrickle_json.kind(oid), pgtrickle_json.parts(oid), pgtrickle_json._settings_known(),
  pgtrickle_json.settings(oid), pgtrickle_json._types_of(oid),
  pgtrickle_json._settings_of(oid, boolean), pgtrickle_json.pin_sql(text[], text),
  pgtrickle_json._is_current(oid), pgtrickle_json.by_name(oid), pgtrickle_json.digest(oid),
  pgtrickle_json._digest_now(oid), pgtrickle_json.shape(oid),
  pgtrickle_json.fits(oid, text, text, oid[]), pgtrickle_json.value_sql(oid, text),
  pgtrickle_json.composite_sql(oid, text), pgtrickle_json.row_sql(oid, text, text, boolean),
  pgtrickle_json.plain_row_sql(text, boolean), pgtrickle_json.careful(record),
  pgtrickle_json._omitting(record), pgtrickle_json.key_marks(oid, smallint[], text[], text)
  to pgtrickle_capture, pgtrickle_admin;
grant execute on function
  pgtrickle_json.kind(oid), pgtrickle_json.parts(oid), pgtrickle_json._settings_known(),
  pgtrickle_json.settings(oid), pgtrickle_json._types_of(oid),
  pgtrickle_json._settings_of(oid, boolean), pgtrickle_json._is_current(oid),
  pgtrickle_json.digest(oid), pgtrickle_json._digest_now(oid), pgtrickle_json.shape(oid),
  pgtrickle_json.value_sql(oid, text), pgtrickle_json.composite_sql(oid, text),
  pgtrickle_json.row_sql(oid, text, text, boolean), pgtrickle_json.plain_row_sql(text, boolean),
  pgtrickle_json.careful(record), pgtrickle_json._omitting(record)
  to public;
