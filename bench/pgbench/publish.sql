\set key random(1, 1000)
select pgtrickle.publish('shop', jsonb_build_object('note', repeat('x', 250)), key => (:key)::text);
