"""The UDP relay: runs without Django, serves what it was granted while the manager is away."""
