"""Every state of a scope and every transition: counted exactly, beside the model a step at a time, and told apart."""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from itertools import product as every

import numpy as np
import pytest
from snapcheck.model import group
from snapcheck.model.device import Allowed, Device, Snapshot
from snapcheck.model.explore import Explored, Violation, explore, memory_bytes, require_room, states_of
from snapcheck.model.group import Ask, Call, Ending, Stage, States, Then, Walk, walk
from snapcheck.model.law_names import Law
from snapcheck.model.merged import Merged
from snapcheck.model.operations import AllDelete, AllGoto, Create, Goto
from snapcheck.model.product import Ended, Product
from snapcheck.model.properties import Broken
from snapcheck.model.replies import Blow, Replies
from snapcheck.model.scope import Act, Scope, ScopeError
from snapcheck.model.semantics import create
from snapcheck.model.setup import Semantics
from snapcheck.model.space import Move, Space, State, Transition
from snapcheck.model.step import step

PAIR = Scope(devices=2, names=1, values=2)

# The numbers that an exploration must give, exactly: states, transitions, those that leave the scope, depth.
EXACT = {
    Scope(devices=1, names=2, values=2): (26, 1_134, 80, 5),
    PAIR: (36, 1_552, 80, 5),
    Scope(devices=2, names=2, values=2): (676, 51_344, 3_360, 9),
    Scope(devices=2, names=1, values=2, duplicates=True): (196, 9_864, 384, 7),
    Scope(devices=3, names=2, values=2): (17_576, 1_889_384, 115_840, 11),
    Scope(devices=4, names=2, values=2): (456_976, 63_281_184, 3_723_520, 15),
}


@pytest.mark.parametrize("scope", EXACT, ids=lambda scope: scope.words)
def test_states_and_transitions_are_counted_exactly(scope: Scope) -> None:
    seen = explore(Space(scope))
    assert (seen.states, seen.transitions, seen.leaving, seen.depth) == EXACT[scope]
    assert sum(seen.levels) == seen.states
    assert (seen.complete, seen.violations, seen.missed) == (True, (), ())


# --- beside other ways of doing it ----------------------------------------------------------------
def one_by_one(space: Space) -> tuple[tuple[int, ...], Counter[Ended], int]:
    """Explore a space a state at a time; return the sizes of the levels, how transitions ended, and how many left."""
    depths, queue, endings, leaving = {space.start: 0}, deque([space.start]), Counter[Ended](), 0
    while queue:
        state = queue.popleft()
        for move, after, bad, _ in space.transitions(state):
            if after is None:
                leaving += 1
                continue
            endings[Ended(move.act, move.refused, move.at, bad)] += 1
            if after not in depths:
                depths[after] = depths[state] + 1
                queue.append(after)
    sizes = Counter(depths.values())
    return tuple(sizes[depth] for depth in range(len(sizes))), endings, leaving


@pytest.mark.parametrize(
    "scope", [PAIR, Scope(devices=2, names=2), Scope(devices=3, names=1), Scope(devices=2, duplicates=True)],
    ids=lambda scope: scope.words,
)  # fmt: skip
def test_thousands_at_a_time_see_what_one_at_a_time_sees(scope: Scope) -> None:
    seen = explore(Space(scope))
    assert (seen.levels, seen.endings, seen.leaving) == one_by_one(Space(scope))


def outcomes_of_step(space: Space, state: State, move: Move, semantics: Semantics) -> set[tuple[object, ...]]:
    """Return what the model itself allows: for each outcome the device that is blamed, and each state it may leave."""
    world = space.world_of(state, semantics)
    operation, faults = move.on(world)
    found: set[tuple[object, ...]] = set()
    for outcome in step(world, operation, faults):
        lefts = [[each.state for each in outcome.devices.get(name, ())] or [old] for name, old in world.devices.items()]
        for left in every(*lefts):
            numbers = tuple(space.tables.number_of(device) for device in left)
            found.add((blamed(move, outcome.expected), None if -1 in numbers else numbers))
    return found


def blamed(move: Move, expected: object) -> int | None:
    """Return the number of the device that an answer blames (for find-vmstate-bs: names)."""
    named = getattr(expected, "first_bad", None) or getattr(expected, "device", None)
    if named is not None:
        return int(named[1:])
    errnos = getattr(expected, "errnos", None)
    failed = errnos is not None and 0 not in errnos
    return move.device if failed else None


@pytest.mark.parametrize(
    "scope", [Scope(devices=3, names=2, values=2), Scope(devices=3, names=2, values=2, duplicates=True)],
    ids=lambda scope: scope.words,
)  # fmt: skip
def test_ten_thousand_random_transitions_are_those_of_step(scope: Scope) -> None:
    space, chance, compared = Space(scope), random.Random(7), 0  # noqa: S311  # the same again, not secret
    while compared < 5_000:
        state = tuple(chance.randrange(len(space.tables.states)) for _ in range(scope.devices))
        move = chance.choice(space.moves)
        found = space.transition(state, move)
        if found is None:
            continue
        plain = space.transition(state, move._replace(refused="", at=None))
        assert plain is not None  # a driver may absorb the fault
        expected = {(each.bad if each.after is not None else None, each.after) for each in (found, plain)}
        told = outcomes_of_step(space, state, move, Semantics.CLASSIC)
        assert {(None if after is None else bad, after) for bad, after in told} == expected, (state, move.words)
        compared += 1


def test_packing_is_undone_by_unpacking() -> None:
    space = Space(Scope(devices=3, names=1))
    product = Product(space)
    packed = np.arange(space.states_max, dtype=np.intp)
    parts = product.parts(packed)
    for number in (0, 1, 41, 215):
        state = product.unpacked(number)
        assert space.packed(state) == number
        assert tuple(int(part[number]) for part in parts) == state


# --- devices that are alike -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "scope", [Scope(devices=1, names=2), PAIR, Scope(devices=3, names=2), Scope(devices=4, names=1, duplicates=True)],
    ids=lambda scope: scope.words,
)  # fmt: skip
def test_merged_states_stand_for_all_of_them(scope: Scope) -> None:
    whole, merged = explore(Space(scope)), explore(Space(scope), merged=True)
    assert merged.states == states_of(scope, merged=True)
    assert merged.stands_for == whole.states == whole.stands_for
    assert merged.depth <= whole.depth
    assert (merged.complete, merged.violations, merged.missed) == (True, (), ())


def test_merged_states_lead_where_their_orders_lead() -> None:
    space = Space(Scope(devices=3, names=2, values=1, refusals=False))
    merged = Merged(space)
    for rank in range(merged.states_max):
        state = merged.unpacked(rank)
        expected = {tuple(sorted(after)) for order in set(permutations(state)) for after in afters(space, order)}
        found: set[State] = set()
        packed = np.array([rank], dtype=np.intp)
        merged.follow(packed, merged.parts(packed), lambda after: found.update(map(merged.unpacked, after.tolist())))  # noqa: B023  # used at once
        assert found - {state} == expected - {state}


def afters(space: Space, state: State) -> list[State]:
    return [each.after for each in space.transitions(state) if each.after is not None]


def test_merged_devices_give_the_same_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.WALK_OF, AllGoto, (Call("goto", Then.GO_ON, Then.SKIP),))
    space = Space(Scope(devices=3, names=1))
    whole, merged = explore(space), explore(space, merged=True)
    assert {each.broken for each in merged.violations} == {each.broken for each in whole.violations} != set()
    for violation in merged.violations:
        assert_breaks(space, violation)


def assert_breaks(space: Space, violation: Violation) -> None:
    """Go the way to a violation and see it happen."""
    state = space.start
    for move in violation.path[:-1]:
        transition = space.transition(state, move)
        assert transition is not None
        assert transition.after is not None
        state = transition.after
    last = space.transition(state, violation.path[-1])
    assert last is not None
    assert violation.broken in last.broken


# --- violations -----------------------------------------------------------------------------------
def going_on(monkeypatch: pytest.MonkeyPatch, scope: Scope) -> tuple[Space, Explored]:
    """Explore a model whose all-goto goes on to the next device when one has failed."""
    monkeypatch.setitem(group.WALK_OF, AllGoto, (Call("goto", Then.GO_ON, Then.SKIP),))
    space = Space(scope)
    return space, explore(space)


def test_a_walk_that_goes_on_after_a_failure_is_found_by_the_shortest_way(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = going_on(monkeypatch, PAIR)
    (violation,) = seen.violations
    assert violation.broken.law is Law.STOPS_AT_FIRST
    assert [move.words for move in violation.path] == ["all-goto a"]  # nobody has it at the start
    assert seen.complete
    assert "all-goto a never failed at d1" in seen.missed


def one_id_for_the_third(snapshots: Sequence[Snapshot]) -> str:
    """Give out ids by a rule that is wrong: the third snapshot gets one that is taken."""
    return "1" if len(snapshots) > 1 else "2"


def test_the_shortest_way_to_a_violation_is_one_that_can_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapcheck.model.semantics.next_id", one_id_for_the_third)
    scope = Scope(devices=2, names=3, values=1, snapshots=3)
    space = Space(scope)
    seen = explore(space)
    violation = next(each for each in seen.violations if each.broken.words == "two snapshots have one id")
    assert_breaks(space, violation)
    assert len(violation.path) == 3


def counts_for_ids(snapshots: Sequence[Snapshot]) -> str:
    """Give out ids by a rule that is right only where they have no gaps."""
    return str(len(snapshots) + 1)


def test_a_rule_that_counts_for_ids_is_found_where_they_have_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapcheck.model.semantics.next_id", counts_for_ids)
    seen = explore(Space(Scope(devices=2, names=2, values=2)))
    assert Broken(Law.LIST_EXACT, "two snapshots have one id, where the ids have gaps") in {
        each.broken for each in seen.violations
    }


# --- from one device to the next ------------------------------------------------------------------
Walking = Callable[..., Iterator[Ending]]


def _names_the_first(stage: Stage, states: States, calls: Walk, nodes: Sequence[str], ask: Ask) -> Iterator[Ending]:
    """Walk, and blame the first device whoever failed: a rule that is wrong."""
    for end in walk(stage, states, calls, nodes, ask):
        yield end if end.node is None else end._replace(node=nodes[0])


def _skips_the_first(stage: Stage, states: States, calls: Walk, nodes: Sequence[str], ask: Ask) -> Iterator[Ending]:
    """Walk past the first device: a rule that is wrong."""
    return walk(stage, states, calls, nodes[1:], ask)


@pytest.mark.parametrize("semantics", list(Semantics))
@pytest.mark.parametrize(
    ("wrong", "law"), [(_names_the_first, Law.RIGHT_CULPRIT), (_skips_the_first, Law.PREFIX_APPLIED)]
)
def test_a_walk_that_goes_wrong_between_devices_is_found(
    monkeypatch: pytest.MonkeyPatch, wrong: Walking, law: Law, semantics: Semantics
) -> None:
    monkeypatch.setattr(group, "walk", wrong)
    seen = explore(Space(PAIR), semantics=semantics)
    assert law in {each.broken.law for each in seen.violations}
    assert seen.compared > 500


def _takes_the_shared_id(device: Device, _node: str, ask: Ask, blow: Blow | None) -> Replies:
    """Create with the id that the device before has left in the struct that they share: a rule that is wrong."""
    (reply, *others) = create(device, ask.sn, blow)
    image = None if not reply.states else reply.states[0].state.image
    if not ask.sn.id_str or image is None:
        return (reply, *others)
    last = image.snapshots[-1]._replace(info=ask.sn)
    state = reply.states[0].state._replace(image=image._replace(snapshots=(*image.snapshots[:-1], last)))
    return (reply._replace(states=(Allowed(state),)), *others)


def test_a_create_that_takes_the_id_of_the_device_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.CALLS, "create", _takes_the_shared_id)
    seen = explore(Space(PAIR))
    assert "all-create a depends on the struct that another device has written" in {
        each.broken.words for each in seen.violations
    }


# --- what a broken rule costs ---------------------------------------------------------------------
def test_states_are_judged_only_until_all_that_is_broken_there_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    space, _ = going_on(monkeypatch, Scope(devices=3, names=1))
    judged: list[State] = []
    transitions = space.transitions

    def noted(state: State) -> Iterator[Transition]:
        judged.append(state)
        return transitions(state)

    monkeypatch.setattr(space, "transitions", noted)
    seen = explore(space)
    assert len(seen.violations) == 1
    assert len(judged) < 10 < seen.states


# --- what is never reached -------------------------------------------------------------------------


def test_a_rule_that_makes_states_unreachable_is_told_by_what_was_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        group.WALK_OF, AllDelete, (Call("find", Then.GO_ON, Then.STOP), Call("delete", Then.GO_ON, Then.STOP))
    )
    seen = explore(Space(Scope(devices=1, names=1, values=1)))
    assert {each.broken.law for each in seen.violations} == {Law.RIGHT_CULPRIT}
    without_create = explore(Space(Scope(devices=2, names=1, values=2, without=("create", "all-create"))))
    assert "a snapshot that every device has" in without_create.missed
    assert "devices with different contents" not in without_create.missed


# --- bounds ---------------------------------------------------------------------------------------
def test_a_scope_that_can_not_fit_is_refused_with_an_estimate() -> None:
    large = Scope(devices=8, names=2, values=3)
    with pytest.raises(
        ScopeError, match=r"1,001,129,150,390,625 states .* take about .* GiB, and there is room for 1.0 GiB"
    ):
        require_room(large, bytes_max=2**30)
    with pytest.raises(ScopeError, match=r"states of one device .* take fewer"):
        require_room(Scope(devices=1, names=9, values=9, snapshots=5), bytes_max=2**60)
    require_room(PAIR, bytes_max=2**30)
    assert memory_bytes(PAIR) < memory_bytes(Scope(devices=4, names=2))


def test_a_search_that_is_stopped_says_so() -> None:
    asked = iter([False, False, True])
    seen = explore(Space(PAIR), must_stop=lambda: next(asked))
    assert not seen.complete
    assert 0 < seen.states < 36


def test_a_path_is_told_in_words() -> None:
    moves = (Move(Act(Create, "a"), 0), Move(Act(Goto, "a"), 1, "goto", 1), Move(Act(AllDelete, "a"), None, "find", 0))
    assert [move.words for move in moves] == [
        "create a of d0", "goto a of d1 with goto refused at d1", "all-delete a with find refused at d0",
    ]  # fmt: skip
