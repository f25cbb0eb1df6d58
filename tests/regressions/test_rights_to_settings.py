"""A setting that was accepted is not answered here for longer than the right to it lasts (E-7 of the wire reference)."""

from __future__ import annotations

from hyperdrive.testing.scene import Scene


async def test_a_right_to_a_setting_that_is_taken_away(scene: Scene) -> None:
    """``log_statement`` is for superusers: the origin says so, and not the next statement's settings that cannot be restored."""
    await scene.sql("drop role if exists low; create role low superuser")
    try:
        await scene.start(servers=2)
        conn, other = await scene.client(), await scene.client()
        await conn.query("set role low")
        for _ in range(2):
            assert not (await conn.query("set log_statement = 'all'")).errors
            assert not (await conn.query("reset log_statement")).errors
        assert not (await other.query("alter role low nosuperuser")).errors
        assert ["42501"] == (await conn.query("set log_statement = 'all'")).errors
        assert [("1",)] == (await conn.query("select 1")).rows
    finally:
        await scene.sql("drop role low")
