"""Byte streams: transports, TLS, listening and connecting. Knows asyncio; knows of PostgreSQL only how TLS is asked for."""
