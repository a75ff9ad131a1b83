pgtrickle-relay --config relay.toml
