"""SQLite databases behind D1's REST paths, with bookmarks and time travel (planned).

Nothing is here yet: the package holds the name and its place among the floors (DESIGN.md), so that the rules for
imports are tested from the first day. What it will do: SQL over HTTP, read replicas that follow a primary, and tokens that let a client read what it wrote.
It will know ``hyperdrive.cache``, ``hyperdrive.replication`` and ``hyperdrive.net``; never the proxy, never another store.
"""
