-- The outbox of each pipeline, for those that an earlier version did not find: it knew not every name
-- of the options `stream_table` and `outbox`. The trigger `touch` writes it.
update pgtrickle.relay_config c set config = c.config
where c.outbox_name is distinct from pgtrickle_internal.relay_outbox_name(c.config);
