"""The way to a node where UDP is blocked: a WebSocket over TLS, one binary message for each packet."""
