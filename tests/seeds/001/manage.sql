-- List all pipelines
SELECT * FROM pgtrickle.list_relay_configs();
-- Disable a pipeline
SELECT pgtrickle.disable_relay('orders-to-nats');
-- Delete a pipeline
SELECT pgtrickle.delete_relay('orders-to-nats');
