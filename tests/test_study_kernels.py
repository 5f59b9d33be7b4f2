"""A class in notebooks on one PostgreSQL: forty kernels at once, each with an engine of its own, which it never closes.

Kernels are threads here: what the database sees of one is its engine.
"""

import threading

import pytest
from studies import stimuli

from creativelib.study.session import RatingSession
from creativelib.study.store import Store

KERNELS = 40
PATIENCE = 120  # seconds


@pytest.fixture
def crowded(postgres_server):
    """The URL of a database whose owner may have ten connections fewer than there are kernels."""
    return postgres_server.create(connections=KERNELS - 10)


def test_forty_kernels_at_once_are_all_served_and_lose_nothing(crowded):
    pictures, said, problems, stores = stimuli(runs=4), {}, {}, []
    begin, done = threading.Barrier(KERNELS), threading.Barrier(KERNELS)

    def kernel(number):
        try:
            begin.wait(PATIENCE)
            store = Store(crowded)
            stores.append(store)
            session = RatingSession(store, pictures, per_rater=3, first=0)
            session.join(f"rater {number}", consent=True)
            while (one := session.current) is not None:
                assert session.rate((number + len(session.given)) % 6, one.id, 900)
                said[session.code, one.id] = session.given[one.id]
        except BaseException as error:
            problems[number] = error
        done.wait(PATIENCE)  # nobody shuts a notebook down because it is finished

    threads = [threading.Thread(target=kernel, args=(number,)) for number in range(KERNELS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not problems
    late = Store(crowded)
    ratings, sessions = late.ratings(), late.sessions()
    [store.close() for store in (late, *stores)]
    kept = zip(ratings["rater"], ratings["stimulus"], ratings["value"], strict=True)
    assert {(rater, stimulus): value for rater, stimulus, value in kept} == said and len(said) == len(ratings) == 3 * KERNELS
    assert (
        sorted(sessions["turn"]) == list(range(KERNELS)) and ratings["stimulus"].value_counts().tolist() == [KERNELS // 4] * 12
    )
