"""The catalogue of seeded bugs: each is told in a story, each law is broken by one, each row is accounted for."""

import re
from pathlib import Path

from snapcheck.impl.targets import find_target
from snapcheck.model.laws import RULES
from snapcheck.stateful_tests.seeded_bugs import CANARY, CATALOGUE
from snapcheck.stateful_tests.seeded_bugs.rows import LEFT_OUT, ROWS
from snapcheck.stateful_tests.seeded_bugs.table import with_tables

STORIES = Path(__file__).parent


def test_there_are_sixty_at_least_and_no_name_comes_twice() -> None:
    names = [bug.name for bug in CATALOGUE]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
    assert len([bug for bug in CATALOGUE if bug.subject == "group"]) >= 15


def test_each_bug_is_a_driver_that_says_what_is_wrong_with_it() -> None:
    told = [find_target(bug.driver).what for bug in CATALOGUE]
    assert len(set(told)) == len(told)
    assert all(len(what) <= 70 for what in told)


def test_each_bug_has_a_story_that_shows_its_damage_without_the_harness() -> None:
    told = re.findall(r'mark\.bug\("([\w-]+)"\)', "".join(file.read_text() for file in STORIES.glob("test_*_bugs.py")))
    assert sorted(told) == sorted(bug.name for bug in CATALOGUE)


def test_each_law_of_a_step_is_broken_by_a_bug() -> None:
    assert {bug.law for bug in CATALOGUE} >= set(RULES)


def test_the_canary_is_in_the_catalogue() -> None:
    assert set(CANARY) <= set(CATALOGUE)


def test_each_row_of_the_list_of_real_bugs_is_planted_or_has_a_reason_not_to_be() -> None:
    planted = {bug.row for bug in CATALOGUE if bug.row}
    assert planted <= set(ROWS)
    assert set(LEFT_OUT) <= set(ROWS)
    assert set(ROWS) - planted <= set(LEFT_OUT)


def test_the_page_shows_the_catalogue_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/seeded_bugs.md").read_text()
    assert page == with_tables(page), "python bench/seeded_bugs_page.py renews it"
