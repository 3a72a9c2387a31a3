"""Parts come, rest and go before a camera with noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.change import Options, make_trigger
from edgevlm_export import inspection
from edgevlm_runtime.errors import EdgeVLMError, ImageError

FPS = 25
PART = next(one for seed in inspection.seeds("validation") if (one := inspection.part(seed)).defect)
BAD = np.asarray(inspection.draw(PART))
GOOD = np.asarray(inspection.draw(dataclasses.replace(PART, defect=None)))


def seen(trigger, scenes, noise=3.0):
    """Numbers of the frames that fired; every scene lasts one frame."""
    chance, found = np.random.default_rng(0), []
    trigger.start()
    for number, scene in enumerate(scenes):
        pixels = np.clip(scene + chance.normal(0, noise, scene.shape).round(), 0, 255).astype(np.uint8)
        firing = trigger.fire(Frame(number + 1, 0.0, number / FPS, pixels))
        if firing is not None:
            assert (firing.kind, firing.addressed) == ("change", False)
            found.append(number)
    return found


def trigger(status=None, **options):
    return make_trigger(Options(**{"at_least_every_s": None, **options}), status or Status())


def test_a_scratch_fires_once_and_noise_never():
    assert seen(trigger(), [GOOD] * 60 + [BAD] * 60 + [GOOD] * 20) == [0, 60, 120]


def test_an_unchanged_scene_does_not_go_unjudged_for_longer():
    assert seen(trigger(at_least_every_s=2.0), [GOOD] * 120) == [0, 50, 100]
    assert seen(trigger(at_least_every_s=2.0), [GOOD] * 30 + [BAD] * 60) == [0, 30, 80]


def test_a_part_that_moves_fires_when_it_has_come_to_rest():
    wide = np.pad(BAD, ((0, 0), (96, 96), (0, 0)), mode="edge")
    moving = [wide[:, 2 * step : 2 * step + 96] for step in range(49)]
    found = seen(trigger(settle_s=0.4), [wide[:, :96]] * 20 + moving + [moving[-1]] * 30)
    assert len(found) == 2
    assert 20 + 48 + 8 <= found[1] <= 20 + 48 + 12


def test_one_that_never_rests_is_judged_all_the_same():
    noise = np.random.default_rng(1).integers(0, 255, (200, 96, 96, 3)).astype(np.uint8)
    assert seen(trigger(settle_s=1.0, at_least_every_s=3.0), noise) == [0, 75, 150]


def test_what_creeps_is_not_at_rest():
    """Half a grey level a frame is no movement from one frame to the next."""
    scenes = [np.clip(GOOD.astype(int), 0, 120).astype(np.uint8)] * 10
    for step in range(100):
        scene = scenes[0].copy()
        scene[30:60, 30:60] = np.clip(scene[30:60, 30:60] + step, 0, 255)
        scenes.append(scene)
    scenes += [scenes[-1]] * 60
    found = seen(trigger(settle_s=1.0), scenes, noise=1.0)
    assert len(found) == 2
    assert found[1] >= 10 + 80 + 20


def test_only_the_box_is_looked_at_and_not_what_is_masked(tmp_path):
    changed = GOOD.copy()
    changed[:30, :30] = 255 - changed[:30, :30]
    scenes = [GOOD] * 5 + [changed] * 5
    Image.fromarray(np.pad(np.zeros((30, 30), np.uint8), ((0, 66), (0, 66)), constant_values=255)).save(
        tmp_path / "m.png"
    )
    assert seen(trigger(), scenes) == [0, 5]
    assert seen(trigger(box=(0, 0, 40, 40)), scenes) == [0, 5]
    assert seen(trigger(box=(0.4, 0.4, 1, 1)), scenes) == [0]
    assert seen(trigger(mask=tmp_path / "m.png"), scenes) == [0]
    assert seen(trigger(polygons=(((0, 0), (31, 0), (31, 31), (0, 31)),)), scenes) == [0]


def test_a_camera_of_another_size_is_a_condition_and_not_the_end():
    status = Status()
    one = trigger(status, box=(0, 0, 90, 90), at_least_every_s=1.0)
    small = GOOD[:80, :80]
    assert seen(one, [GOOD] * 10 + [small] * 40) == [0, 25]
    assert [(found.name, found.bad) for found in status.snapshot().conditions] == [("trigger change", True)]
    assert one.fire(Frame(99, 0.0, 2.1, GOOD)) is not None
    assert status.snapshot().conditions == ()


def test_the_difference_is_measured():
    status = Status()
    seen(trigger(status), [GOOD, BAD])
    assert 0.04 < status.snapshot().gauges["change"] < 1


def test_bad_options(tmp_path):
    for options in ({"above": 0}, {"above": 1}, {"settle_s": -1}, {"at_least_every_s": 0}):
        with pytest.raises(EdgeVLMError, match=next(iter(options))):
            Options(**options)
    with pytest.raises(ImageError, match="no such image file"):
        make_trigger(Options(mask=tmp_path / "none.png"), Status()).start()
