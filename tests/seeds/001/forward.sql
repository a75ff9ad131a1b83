SELECT pgtrickle.set_relay_outbox(
'orders-to-nats',
config => '{
"stream_table": "orders_stream",
"sink_type": "nats",
"nats_url": "nats://localhost:4222",
"nats_stream": "pgtrickle",
"subject_template": "pgtrickle.{stream_table}.{op}"
}'::jsonb
);
SELECT pgtrickle.enable_relay('orders-to-nats');
