"""What is wrong, and what to do about it: everything that has to work is tried, all at once, in seconds."""
