"""A vector index with the paths of Vectorize (planned).

Nothing is here yet: the package holds the name and its place among the floors (DESIGN.md), so that the rules for
imports are tested from the first day. What it will do: insert, query and filter vectors, with an exact index as the oracle for the approximate one.
It will know ``hyperdrive.cache``, ``hyperdrive.replication`` and ``hyperdrive.net``; never the proxy, never another store.
"""
