"""`relayctl doctor`: checks every component of an installation, and says what to do about each problem."""
