create table orders_trigger (id bigint generated always as identity primary key, customer int, note text);
create table orders_plain (id bigint generated always as identity primary key, customer int, note text);
create table plain_outbox (id bigint generated always as identity primary key, payload jsonb not null,
                           created_at timestamptz not null default clock_timestamp());
select pgtrickle.enable_outbox('orders_trigger');
