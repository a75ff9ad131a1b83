-- Create the inbox
SELECT pgtrickle.create_inbox('payment_events');

-- Stream table over incoming payment events
SELECT pgtrickle.create_stream_table(
  'payment_summary',
  $$SELECT customer_id,
           SUM((payload->>'amount')::numeric) AS total_paid,
           COUNT(*) AS payment_count
    FROM pgtrickle.inbox_payment_events
    WHERE processed = false
    GROUP BY customer_id$$,
  schedule => '2s',
  refresh_mode => 'DIFFERENTIAL'
);
