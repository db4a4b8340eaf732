"""How every process tells what it does: log lines, metrics on a port, traces. A leaf: it imports nothing of ours."""
