SELECT pgtrickle.create_change_feed('public.order_totals');
SELECT * FROM pgtrickle_changes.feed_order_totals WHERE change_id > :cursor ORDER BY change_id;
SELECT pgtrickle.cleanup_change_feed('public.order_totals', older_than => interval '1 hour');
