"""What one worker asks of another, and how it hears that it failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hyperdrive.control.peers import Peer, PeerServer, peer_path
from hyperdrive.errors import ClientError, NotReady


async def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "resume":
        raise ClientError("PAUSE holds for all databases", sqlstate="55000")
    return {"echo": request}


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    server = PeerServer(_answer)
    directory = tmp_path / "workers"
    directory.mkdir()
    await server.start(peer_path(str(directory), 1))
    yield Peer(str(directory), 1)
    await server.close()
    assert not directory.exists()


async def test_an_answer(peer: Peer) -> None:
    assert {"echo": {"do": "purge", "name": "t"}} == await peer.call(do="purge", name="t")


async def test_an_error_keeps_its_sqlstate(peer: Peer) -> None:
    with pytest.raises(NotReady, match="worker 1: PAUSE holds for all databases") as caught:
        await peer.call(do="resume")
    assert caught.value.code == "55000"


async def test_a_worker_that_is_not_there_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="worker 2 does not answer") as caught:
        await Peer(str(tmp_path), 2).call(do="purge")
    assert caught.value.code == "57P03"
