-- The functions that run with the rights of the administrator who calls them: those that create,
-- alter and drop a stream table, and those that a refresh calls as its creator. All others are called
-- by pgtrickle_owner only.
do $$
declare
  r record;
begin
  for r in
    select p.oid::regprocedure as name
    from pg_catalog.pg_proc p
    where p.pronamespace = 'pgtrickle'::regnamespace
      and p.proname = any (array[
        '_stream_split_name', '_stream_find', '_stream_id', '_stream_register', '_stream_lock',
        '_stream_unlock', '_stream_is_refreshing', '_stream_store', '_stream_unregister',
        '_stream_check_mode', '_stream_mark', '_schema_under', '_stream_probe', '_stream_columns',
        '_stream_definition', '_stream_fill', '_stream_locked', '_source_counts',
        '_source_triggers_missing', '_stream_rebind',
        '_stream_make_function', '_stream_make_diff', '_stream_guard', '_stream_make_key',
        '_stream_create',
        '_stream_alter_query', '_stream_alter', '_stream_discover', '_source_members',
        '_source_changed', '_source_sequence', '_source_sequences_sweep', '_source_trigger',
        '_source_trigger_on_ours', '_source_watch', '_stream_set_sources', '_stream_track',
        '_stream_untrack', '_told_apart_by', '_stream_layout', '_stream_layout_rows',
        '_stream_key_is_certain', '_stream_outline', '_stream_key_facts', '_stream_equality',
        '_stream_reads_loose_index', '_stream_key_proven', '_stream_derive_key',
        '_stream_say_keyless', '_stream_set_key', '_stream_layout_keyed',
        '_stream_diff_statement', '_stream_triggers_off',
        '_stream_place_duplicates', '_stream_empty', '_stream_write', '_stream_apply',
        '_stream_affected_keys', '_stream_differential', '_stream_rewrite', '_stream_verify',
        '_stream_work', '_cron_field', '_cron_parse', '_schedule_interval', '_schedule_check',
        '_schedule_is_manual'])
  loop
    execute format('grant execute on function %s to pgtrickle_admin', r.name);
  end loop;
end $$;
