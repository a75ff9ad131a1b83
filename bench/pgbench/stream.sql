insert into orders (note) values (repeat('x', 250));
