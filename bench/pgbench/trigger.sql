insert into orders_trigger (customer, note) values (:client_id, repeat('x', 250));
