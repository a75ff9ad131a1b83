with made as (insert into orders_plain (customer, note) values (:client_id, repeat('x', 250)) returning *)
insert into plain_outbox (payload) select to_jsonb(made) from made;
