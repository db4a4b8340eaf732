"""What the consoles of all applications share."""
