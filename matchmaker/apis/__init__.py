"""HTTP. Each view parses its request, calls one service or selector, and serializes the result."""
