"""A pass over the pool of a profile version, and what follows from its matches."""
