"""The processing of every HTTP request: connection, queue, client address, limits and body."""
