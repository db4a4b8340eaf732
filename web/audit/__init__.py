"""The audit log: who changed what, and through which interface."""
