"""A key-value store with the paths of Workers KV (planned).

Nothing is here yet: the package holds the name and its place among the floors (DESIGN.md), so that the rules for
imports are tested from the first day. What it will do: keys with metadata and expiry, answered from the cache of this house and carried between regions by its replication.
It will know ``hyperdrive.cache``, ``hyperdrive.replication`` and ``hyperdrive.net``; never the proxy, never another store.
"""
