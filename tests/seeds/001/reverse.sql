SELECT pgtrickle.set_relay_inbox(
'nats-to-orders-inbox',
config => '{
"source_type": "nats",
"nats_url": "nats://localhost:4222",
"nats_stream": "commands",
"nats_consumer": "relay-consumer",
"inbox_table": "orders_inbox"
}'::jsonb
);
SELECT pgtrickle.enable_relay('nats-to-orders-inbox');
