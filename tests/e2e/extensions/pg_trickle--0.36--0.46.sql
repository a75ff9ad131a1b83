-- Stand-in for pg_trickle from 0.46 on: stream tables only. Its outboxes are pg_tide's.

drop function pgtrickle.enable_outbox(text, int), pgtrickle.disable_outbox(text, boolean),
  pgtrickle.outbox_status(text), pgtrickle.set_relay_outbox(text, jsonb, boolean),
  pgtrickle.set_relay_inbox(text, jsonb, boolean), pgtrickle.enable_relay(text),
  pgtrickle.disable_relay(text), pgtrickle.delete_relay(text), pgtrickle.get_relay_config(text),
  pgtrickle.list_relay_configs(), pgtrickle.create_inbox(text, text),
  pgtrickle.drop_inbox(text, boolean), pgtrickle.enable_inbox_tracking(text, text),
  pgtrickle.inbox_health(text), pgtrickle.inbox_status(text),
  pgtrickle.replay_inbox_messages(text, text[]);
drop table pgtrickle.pgt_outbox_config, pgtrickle.pgt_inbox_config, pgtrickle.relay_outbox_config,
  pgtrickle.relay_inbox_config, pgtrickle.relay_consumer_offsets;

create table pgtrickle.pgt_outbox_config (
  stream_table_oid oid primary key,
  tide_outbox_name text not null,
  attached_at      timestamptz not null default now()
);
