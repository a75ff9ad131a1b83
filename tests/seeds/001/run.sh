pgtrickle-relay \
--postgres-url "postgres://relay:password@localhost:5432/mydb" \
--metrics-addr "0.0.0.0:9090" \
--log-format json \
--relay-group-id "dc1-relay"
