"""A real PostgreSQL for people who have none: ``serve`` without an origin, ``demo``, and the tests.

Knows how ``initdb`` and ``postgres`` are run and stopped (app-initdb, app-postgres, server-start, server-shutdown). Knows
nothing of the proxy. ``localinstall`` knows where the programs are and who runs them when we are root; here ``data`` knows how a
directory becomes a database cluster, ``postmaster`` one run of the server and its end with ours, ``signs`` what can be seen of it from
outside, and ``server`` joins them.

What holds, each by a test in tests/test_localserver.py: the server listens on loopback or a socket only; it asks for a
password unless told otherwise; when this process dies, however it dies, the server shuts down; a directory that a server
uses is refused; one that a crash left behind is started again.
"""

from hyperdrive.localserver.data import Auth
from hyperdrive.localserver.postmaster import Shutdown
from hyperdrive.localserver.server import LocalServer

__all__ = ["Auth", "LocalServer", "Shutdown"]
