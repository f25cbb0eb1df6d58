"""What the tests of ``net`` share: certificates made once, and protocol objects that write down what happens to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperdrive.testing.certs import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("strangers"), name="stranger")


class Recorder(asyncio.Protocol):
    """A protocol object that keeps all it was told; ``until`` waits for a condition on it without polling."""

    def __init__(self, *, keeps_open_at_eof: bool = False) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.transport: Any = None
        self.lost_with: Exception | None = None
        self._keeps_open = keeps_open_at_eof
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._note("data")

    def eof_received(self) -> bool:
        self._note("eof")
        return self._keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_with = exc
        self._note("lost")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    async def until(self, event: str) -> None:
        while event not in self.events:
            self._changed.clear()
            await self._changed.wait()

    async def until_received(self, size: int) -> bytes:
        while len(self.received) < size:
            assert "lost" not in self.events, f"lost after {len(self.received)} of {size} bytes: {self.lost_with!r}"
            self._changed.clear()
            await self._changed.wait()
        return bytes(self.received)

    def _note(self, event: str) -> None:
        if event != "data" or self.events[-1:] != ["data"]:
            self.events.append(event)
        self._changed.set()


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder
