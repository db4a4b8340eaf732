"""What happens to every HTTP request: its connection, its turn, its caller's address, its limits and its body."""
