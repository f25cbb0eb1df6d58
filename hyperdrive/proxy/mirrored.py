"""What the express lane in C repeats (``lane``): whether a compiled one is of these sources, for the build and for the start.

Run by ``setup.py`` before anything is installed, so it imports nothing of ours.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent.parent

FILES: Final = (
    "cache/entry.py",
    "cache/store.py",
    "cache/tags.py",
    "pool/pool.py",
    "proxy/_lane.c",
    "proxy/_lane_answer.h",
    "proxy/_lane_ask.h",
    "proxy/_lane_asked.h",
    "proxy/_lane_hit.h",
    "proxy/_lane_objects.h",
    "proxy/_lane_pass.h",
    "proxy/answered.py",
    "proxy/asked.py",
    "proxy/cache.py",
    "proxy/client.py",
    "proxy/context.py",
    "proxy/lane.py",
    "proxy/metrics.py",
    "proxy/reads.py",
    "proxy/server.py",
    "proxy/serving.py",
    "proxy/who.py",
    "session/batch.py",
    "session/client.py",
    "session/failures.py",
    "session/ledger.py",
    "session/outcome.py",
    "session/pipe.py",
    "session/replies.py",
    "session/scopes.py",
    "session/server.py",
    "session/statements.py",
    "sql/cache.py",
    "sql/introspection.py",
    "sql/verdict.py",
)
"""Below the package: the C sources, and where what it repeats or reads stands."""

FUNCTIONS: Final = (
    "cache/entry.py:Entry.is_valid",
    "pool/pool.py:Pool.take",
    "pool/pool.py:Pool.release",
    "proxy/asked.py:glanced_key",
    "proxy/client.py:ClientConnection.data_received",
    "proxy/client.py:ClientConnection._express",
    "proxy/client.py:ClientConnection.served",
    "proxy/reads.py:Reader.glance",
    "proxy/reads.py:Reader.answer",
    "proxy/reads.py:Reader._is_passed",
    "proxy/reads.py:Reader.passes",
    "proxy/reads.py:Reader._look_known",
    "proxy/reads.py:Reader._maybe_known",
    "proxy/server.py:ServerConnection.data_received",
    "proxy/server.py:ServerConnection._pass_on",
    "session/batch.py:Batch.receive",
    "session/batch.py:Batch._is_usual",
    "session/batch.py:Batch._is_usual_parse",
    "session/client.py:ClientSession.compose_whole",
    "session/client.py:ClientSession.close_portal",
    "session/scopes.py:_table",
    "session/scopes.py:limited",
    "session/server.py:ServerSession.put",
    "session/server.py:ServerSession.receive",
    "sql/cache.py:VerdictCache.classify",
    "sql/introspection.py:may_be_introspection",
)
"""What it repeats. A test holds their text against a seal: whoever changes one has to look at the C as well."""


def digest() -> str:
    """Stands for these sources: a compiled lane is used only with the ones it was built from."""
    found = sha256()
    for name in FILES:
        found.update(name.encode() + b"\0" + (PACKAGE / name).read_bytes() + b"\0")
    return found.hexdigest()
