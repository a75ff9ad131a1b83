"""What the end-to-end and chaos tests stand on: servers, clients, the relay as a process."""
