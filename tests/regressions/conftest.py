"""What the regression tests share with the hazard tests: the stages, with a real origin and with a scripted one."""

from __future__ import annotations

from tests.hazards.conftest import fake, fake_scene, scene

__all__ = ["fake", "fake_scene", "scene"]
