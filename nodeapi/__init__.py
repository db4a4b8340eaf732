"""The documents that the manager and a node exchange (docs/node-api.md), each defined once as a msgspec struct.

Manager and node both import this package; it imports the wire's constants and nothing of either.
"""
