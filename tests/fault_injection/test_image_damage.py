"""Stories of wrecked images: the kinds are sound, every field is found, and one draw makes one damage."""

from collections import Counter
from random import Random

import pytest
from snapcheck.fault_injection.image_damage import draw_damage, places
from snapcheck.fault_injection.image_kinds import KINDS, sound_image
from snapcheck.impl.qcow2 import Image, inspect


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_sound_before_it_is_wrecked(kind: str) -> None:
    file = sound_image(kind)
    report = inspect(file)
    assert report.clean, report.problems
    with Image.open(file, read_only=True) as image:
        assert any(image.read(0, image.size_bytes))


def test_what_is_done_to_one_image_does_not_show_in_the_next() -> None:
    sound_image("version 3").truncate(0)
    assert inspect(sound_image("version 3")).clean


def test_the_fields_of_all_tables_are_found() -> None:
    found = set[str]().union(*(places(sound_image(kind)) for kind in KINDS))
    for table in ("header", "refcount_table", "refcount_block", "l1", "l2", "snapshot", "bitmap"):
        assert any(field.startswith(f"{table}.") for field in found)
    assert {"compressed_data", "l2.compressed_entry", "snapshot.l1.entry", "snapshot.l2.entry"} <= found
    assert len(found) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_places_lie_in_the_file_and_in_no_other_field_of_their_table(kind: str) -> None:
    file = sound_image(kind)
    for each in places(file).values():
        for place in each:
            assert place.offset >= 0
            assert place.offset + place.length <= -(-file.size() // 512) * 512 + 512


def test_the_same_chance_wrecks_the_same_way_and_most_draws_change_one_field() -> None:
    sizes: Counter[int] = Counter()
    for number in range(200):
        rngs = [Random(number), Random(number)]  # noqa: S311  # chance for a test, no secret
        first, second = (draw_damage(rng, "version 3") for rng in rngs)
        assert first.words == second.words
        assert first.file.pread(0, 1 << 16) == second.file.pread(0, 1 << 16)
        sizes[len(first.words)] += 1
    assert sizes[1] > 100
    assert sizes[2] + sizes[3] > 10
