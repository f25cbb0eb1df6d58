"""What a process made to start it is no work for the collector any more."""

from __future__ import annotations

import gc

from hyperdrive.app import keep_for_good


def test_the_collector_does_not_look_at_what_is_there_to_the_end() -> None:
    before = len(gc.get_objects())
    try:
        keep_for_good()
        assert gc.get_freeze_count() > before / 2
        assert len(gc.get_objects()) < before / 2
    finally:
        gc.unfreeze()
