"""What is stored and when it may be served: entries, tags, fills, flights, policies.

Knows bytes, tags and time; knows neither SQL nor Postgres, no socket and no loop. ``DESIGN.md`` has the guarantees.
"""
