"""The UDP relay. It runs without Django, and keeps serving its sessions while the manager is unreachable."""
