"""Who rates what: balanced however many join at once, pairs that are dealt evenly, a rule for whom to leave out."""

import threading
from collections import Counter

import pytest
from studies import stimuli

from creativelib.study import dealing
from creativelib.study import store as store_module
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


def test_the_turn_of_who_stopped_early_is_dealt_again(store, monkeypatch):
    pictures = stimuli(runs=4)
    people = [RatingSession(store, pictures, per_rater=6, first=0) for _ in range(8)]
    later = dealing.now() + 1.5 * dealing.IDLE

    def join(number):
        people[number].join(f"rater {number}", consent=True)
        return store.view(people[number].session)["turn"]

    def rate(number, count):
        for _ in range(count):
            people[number].rate(3)

    assert [join(number) for number in range(4)] == [0, 1, 2, 3]
    rate(0, 6)  # finished
    rate(1, 6), people[1].undo()  # one picture short
    assert join(4) == 4  # nobody has been away for long
    monkeypatch.setattr(store_module, "_now", lambda: (later - dealing.IDLE / 2).isoformat())
    rate(3, 1)  # has come back
    monkeypatch.setattr(dealing, "now", lambda: later)
    assert [join(5), join(6), join(7)] == [1, 2, 4]  # not 0, which is finished, nor 3, which is being rated
    people[2].join("rater 2", consent=True)
    assert store.view(people[2].session)["turn"] == 2 and people[2].progress == (0, 6)  # who comes back has their own
    people.append(RatingSession(store, pictures, per_rater=6, first=0))
    assert join(8) == 5  # none is dealt to three


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
    session = RatingSession(store, pictures, scales=("surprising",), first=0)
    session.join("other device", consent=True)
    store.rate(session.session, session.order[0], 3, 900)
    store.unite("careful", "other device")
    assert exclusions(store.ratings(), Numbers)["careful"] == "was asked both questions"
    assert "500 ms" in rule(Numbers) and "of 8 or more, one number" in rule(Numbers)
    assert "hasty" not in exclusions(store.ratings().drop(columns="milliseconds"), Numbers)
    assert exclusions(store.ratings().iloc[:0], Numbers) == {}
