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
    where p.pronamespace = 'pgtrickle_internal'::regnamespace
      and p.proname = any (array[
        'stream_split_name', 'stream_find', 'stream_id', 'stream_register', 'stream_lock',
        'stream_unlock', 'stream_is_refreshing', 'stream_store', 'stream_unregister',
        'stream_check_mode', 'stream_mark', 'schema_under', 'stream_probe', 'stream_columns',
        'stream_definition', 'stream_fill', 'stream_locked', 'source_counts',
        'source_triggers_missing', 'stream_rebind',
        'stream_make_function', 'stream_make_diff', 'stream_guard', 'stream_make_key',
        'stream_create',
        'stream_alter_query', 'stream_alter', 'stream_drop', 'stream_discover', 'source_members',
        'source_changed', 'source_sequence', 'source_sequences_sweep', 'source_trigger',
        'source_trigger_on_ours', 'source_watch', 'stream_set_sources', 'stream_track',
        'stream_untrack', 'told_apart_by', 'stream_layout', 'stream_layout_rows',
        'stream_key_is_certain', 'stream_outline', 'stream_key_facts', 'stream_equality',
        'stream_reads_loose_index', 'stream_key_proven', 'stream_derive_key',
        'stream_say_keyless', 'stream_set_key', 'stream_layout_keyed',
        'stream_diff_statement', 'stream_triggers_off',
        'stream_place_duplicates', 'stream_empty', 'stream_write', 'stream_apply',
        'stream_affected_keys', 'stream_differential', 'stream_rewrite', 'stream_verify',
        'stream_work', 'cron_field', 'cron_parse', 'schedule_interval', 'schedule_check',
        'schedule_is_manual'])
  loop
    execute format('grant execute on function %s to pgtrickle_admin', r.name);
  end loop;
end $$;
