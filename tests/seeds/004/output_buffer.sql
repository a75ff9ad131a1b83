SELECT * FROM pgtrickle_changes.output_12345 WHERE change_id > :last_seen_id ORDER BY change_id;
