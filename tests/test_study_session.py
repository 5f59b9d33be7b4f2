"""Who rates what: balanced however many join at once, pairs that are dealt evenly, a rule for whom to leave out."""

import threading
from collections import Counter

import pytest
from studies import stimuli

from creativelib.study.exclusions import exclusions, rule
from creativelib.study.pairs import choice_pairs
from creativelib.study.session import RatingSession
from creativelib.study.store import Store


class Numbers:
    failed_checks, quickest = 0, 500


@pytest.fixture
def store(memory_folder):
    store = Store(memory_folder / "study.sqlite")
    yield store
    store.close()


def join_at_once(store, pictures, people, **options):
    """All of them press the button in the same moment."""
    sessions = [RatingSession(store, pictures, **options) for _ in range(people)]
    barrier = threading.Barrier(people)

    def join(number):
        barrier.wait()
        sessions[number].join(f"rater {number}", consent=True, text="You agree.")

    threads = [threading.Thread(target=join, args=(number,)) for number in range(people)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return sessions


@pytest.mark.parametrize("first", [0, None])
def test_when_all_join_at_once_pictures_are_dealt_exactly_evenly(store, first):
    pictures = stimuli(runs=4)  # three pictures a run; two runs for each person
    sessions = join_at_once(store, pictures, 16, per_rater=6, first=first)
    assert set(Counter(name for one in sessions for name in one.order).values()) == {8}
    turns = sorted(store.sessions()["turn"])
    assert turns == list(range(turns[0], turns[0] + 16)) and (first is None or turns[0] == 0)


def test_each_scale_has_a_balance_of_its_own(store):
    scales = ("creative", "creative", "creative", "surprising")
    join_at_once(store, stimuli(runs=3), 12, per_rater=3, first=0, scales=scales)
    frame = store.sessions()
    assert frame["scale"].value_counts().to_dict() == {"creative": 9, "surprising": 3}
    for _, rows in frame.groupby("scale"):
        assert len(set(Counter(name for order in rows["stimuli"] for name in order).values())) == 1


def test_pairs_are_of_one_run_and_dealt_evenly():
    pictures = stimuli(runs=4, outsiders=2, repeats=2)
    facts = {one.id: one for one in pictures}
    dealt = Counter()
    for turn in range(12):
        pairs = choice_pairs(pictures, 3, turn)
        assert pairs == choice_pairs(pictures, 3, turn) and len(pairs) == len({frozenset(pair) for pair in pairs}) == 3
        for left, right in pairs:
            assert facts[left].seed == facts[right].seed and facts[left].iteration != facts[right].iteration
            dealt[frozenset((left, right))] += 1
    assert len(dealt) == 12 and set(dealt.values()) == {3}
    sides = Counter(choice_pairs(pictures, 1, 12 * turn)[0] for turn in range(200))
    assert len(sides) == 2 and min(sides.values()) > 60  # neither side is one condition's
    assert choice_pairs(pictures, 0, 0) == choice_pairs(stimuli(1)[:1], 3, 0) == []
    assert len(choice_pairs(pictures, 99, 5)) == 12


def test_the_rule_names_everybody_and_why(store):
    pictures = stimuli(runs=4, outsiders=1)
    outsider = next(one.id for one in pictures if one.kind == "outsider")
    people = [("careful", None, 900, 0), ("careless", None, 900, 3), ("same", 3, 900, 0), ("hasty", None, 90, 0)]
    for code, value, milliseconds, check in people:
        session = RatingSession(store, pictures)
        session.join(code, consent=True)
        for place, name in enumerate(session.order):
            given = check if name == outsider else place % 6 if value is None else value
            store.rate(session.session, name, given, milliseconds)
    found = exclusions(store.ratings(), Numbers)
    assert set(found) == {"careless", "same", "hasty"}
    assert "something else" in found["careless"] and "same number" in found["same"] and "90 ms" in found["hasty"]
    assert "500 ms" in rule(Numbers) and exclusions(store.ratings().iloc[:0], Numbers) == {}
