begin;
insert into orders_plain (customer, note) values (:client_id, repeat('x', 250)) returning id \gset
insert into plain_outbox (payload) values (jsonb_build_object('id', :id::bigint, 'customer', :client_id::int, 'note', repeat('x', 250)));
commit;
