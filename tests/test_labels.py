"""Labels: what marking, clearing and undo do; what a killed process leaves; which journals are refused."""

import json
import os
import signal
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creativelib.labels import COLOURS, Cluster, Labels, cluster_name, fingerprint

IDS = ["a", "b", "c", "d"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


@pytest.fixture
def labels(path):
    return Labels(path, IDS)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- marking ----------------------------------------------------------------------------------------------------------


def test_a_new_journal_has_no_labels(labels, path):
    assert labels.labels == {} and labels.clusters == [] and labels.counts == {} and labels.progress == (0, 4)
    assert len(lines(path)) == 1


def test_marking_puts_an_image_into_a_cluster(labels):
    labels.mark("c", "blotchy")
    labels.mark("a", "blotchy")
    assert labels.labels == {"a": "blotchy", "c": "blotchy"}
    assert labels.of("blotchy") == ["a", "c"] and labels.indices("blotchy") == [0, 2]
    assert labels.counts == {"blotchy": 2} and labels.progress == (2, 4)


def test_an_image_is_in_one_cluster_at_most(labels):
    labels.mark("a", "blotchy")
    labels.mark("a", "muddy")
    assert labels.labels == {"a": "muddy"} and labels.counts == {"blotchy": 0, "muddy": 1}
    labels.undo()
    assert labels.labels == {"a": "blotchy"} and labels.counts == {"blotchy": 1}


def test_clearing_takes_an_image_out(labels):
    labels.mark("a", "blotchy")
    labels.clear("a")
    assert labels.labels == {} and labels.of("blotchy") == []


def test_many_are_one_change(labels):
    labels.mark("b", "muddy")
    labels.mark_many(["a", "b", "a", "c"], "blotchy")
    assert labels.counts == {"muddy": 0, "blotchy": 3}
    assert labels.undo() == "marking 3 as blotchy"
    assert labels.labels == {"b": "muddy"}


def test_what_changes_nothing_is_not_written(labels, path):
    labels.mark("a", "blotchy")
    before = path.read_bytes()
    labels.mark("a", "blotchy")
    labels.clear("b")
    labels.add("blotchy")
    assert path.read_bytes() == before


def test_undo_says_what_it_took_back_until_nothing_is_left(labels):
    labels.add("muddy")
    labels.mark("a", "blotchy")
    labels.clear("a")
    assert [labels.undo() for _ in range(4)] == ["clearing 1", "marking 1 as blotchy", "naming muddy", ""]
    assert labels.labels == {} and labels.clusters == []


def test_whole_numbers_are_ids_too(path):
    labels = Labels(path, range(3))
    labels.mark(2, "blotchy")
    assert labels.labels == {"2": "blotchy"} and labels.indices("blotchy") == [2]


def test_names_are_normalised(labels):
    labels.mark("a", "  too \n bright ")
    labels.mark("b", "cafe\u0301")  # e and an accent of its own
    labels.mark("c", "caf\u00e9")  # one letter
    assert labels.counts == {"too bright": 1, "caf\u00e9": 2}
    assert labels.of("too  bright") == ["a"]


@given(st.text())
def test_a_name_is_kept_as_it_is_normalised_or_refused(name):
    try:
        kept = cluster_name(name)
    except ValueError:
        assert not name.split()
    else:
        assert kept == cluster_name(kept) == unicodedata.normalize("NFC", kept)
        assert kept.split() == unicodedata.normalize("NFC", name).split()


def test_signs_never_repeat_and_colours_are_legible_under_white():
    clusters = [Cluster.numbered(str(index), index) for index in range(60)]
    assert [clusters[index].sign for index in (0, 25, 26, 52)] == ["A", "Z", "A2", "A3"]
    assert len({cluster.sign for cluster in clusters}) == 60
    for colour in COLOURS:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (luminance + 0.05) >= 4.5  # the contrast that WCAG 2 asks of text


def test_clusters_keep_their_signs_in_the_order_of_naming(labels):
    labels.add("muddy")
    labels.mark("a", "blotchy")
    labels.clear("a")
    assert [(cluster.sign, cluster.name) for cluster in labels.clusters] == [("A", "muddy"), ("B", "blotchy")]


@pytest.mark.parametrize("name", ["", " \n", None, 3])
def test_a_cluster_needs_a_name(labels, name):
    for call in (lambda: labels.mark("a", name), lambda: labels.add(name), lambda: labels.of(name)):
        with pytest.raises(ValueError, match="cluster: got .*; give a name"):
            call()


def test_wrong_images_are_refused_and_nothing_is_written(labels, path):
    before = path.read_bytes()
    for call in (lambda: labels.mark("e", "x"), lambda: labels.mark_many(["a", "e"], "x"), lambda: labels.clear("e")):
        with pytest.raises(ValueError, match="image: got 'e'; allowed are the 4 ids 'a', 'b', 'c', 'd'"):
            call()
    for images in ([], "ab"):  # text is no list of ids
        with pytest.raises(ValueError, match="images: got .*; give a list"):
            labels.mark_many(images, "x")
    assert path.read_bytes() == before


def test_an_unknown_cluster_is_refused_with_those_that_there_are(labels):
    labels.add("muddy")
    with pytest.raises(ValueError, match=r"cluster: got 'blotchy'; there are \['muddy'\]"):
        labels.of("blotchy")


@pytest.mark.parametrize(
    ("ids", "got"), [([], "0, 0 of them different"), (["a", "b", "a"], "3, 2 of them different"), ("abc", "the text 'abc'")]
)
def test_ids_must_be_some_and_different(path, ids, got):
    with pytest.raises(ValueError, match=f"ids: got {got}; give"):
        Labels(path, ids)
    assert not path.exists()


# --- the journal ------------------------------------------------------------------------------------------------------

CHANGES = st.one_of(
    st.tuples(st.just("mark_many"), st.lists(st.sampled_from(IDS), min_size=1), st.sampled_from(["x", "y", "é"])),
    st.tuples(st.just("clear"), st.sampled_from(IDS)),
    st.tuples(st.just("add"), st.sampled_from(["x", "z"])),
    st.tuples(st.just("undo")),
)


def follow(changes):
    """What the labels are after the changes, by keeping every state; and whether each change wrote a line."""
    states, wrote = [({}, ())], []
    for kind, *what in changes:
        labels, names = dict(states[-1][0]), states[-1][1]
        if kind == "undo":
            wrote.append(len(states) > 1)
            states = states[:-1] or states
            continue
        if kind == "clear":
            labels.pop(what[0], None)
        elif kind == "mark_many":
            labels |= dict.fromkeys(what[0], what[1])
        name = {"add": what[0], "mark_many": what[-1]}.get(kind)
        changed = labels != states[-1][0] or (kind == "add" and name not in names)
        wrote.append(changed)
        if changed:
            states.append((labels, names + ((name,) if name and name not in names else ())))
    return states[-1], wrote


def state(labels):
    return labels.labels, tuple(cluster.name for cluster in labels.clusters)


@settings(max_examples=30, deadline=None)
@given(changes=st.lists(CHANGES, max_size=12), switch=st.integers(0, 12))
def test_any_history_gives_the_same_labels_here_elsewhere_and_reopened(tmp_path_factory, changes, switch):
    path = tmp_path_factory.mktemp("history") / "journal"
    here, there = Labels(path, IDS), Labels(path, IDS)
    for index, (kind, *what) in enumerate(changes):
        getattr(here if index < switch else there, kind)(*what)
    expected, wrote = follow(changes)
    here.refresh()
    there.refresh()
    assert state(here) == state(there) == state(Labels(path, IDS)) == expected
    assert len(lines(path)) == 1 + sum(wrote)
    copy = Labels.from_json(here.to_json(), path.with_name("copy"))
    assert state(copy) == expected
    again = Labels(path.with_name("again"), IDS)
    again.replay(path)
    assert state(again) == expected


def test_a_journal_cut_anywhere_has_all_changes_that_were_whole(tmp_path):
    path, cut = tmp_path / "whole", tmp_path / "cut"
    labels = Labels(path, IDS)
    states = [{}]
    for image in "abc":
        labels.mark(image, "très flou")
        states.append(labels.labels)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        cut.write_bytes(whole[:length])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            reopened = Labels(cut, IDS)
        torn = whole[:length].rpartition(b"\n")[2]
        assert reopened.labels == states[max(whole[:length].count(b"\n") - 1, 0)]
        assert len(caught) == bool(torn) and reopened.dropped == torn.decode(errors="replace")
        assert cut.read_bytes().endswith(b"\n")
        cut.unlink()


def test_the_warning_of_a_torn_line_names_the_callers_line_and_marking_goes_on(labels, path):
    labels.mark("a", "blotchy")
    with path.open("ab") as file:
        file.write(b'{"mark": ["b"], "clus')
    with pytest.warns(UserWarning, match='dropped a last line that was never finished: \'{"mark": ') as caught:
        reopened = Labels(path, IDS)
    assert caught[0].filename == __file__
    reopened.mark("c", "muddy")
    assert Labels(path, IDS).labels == {"a": "blotchy", "c": "muddy"}


KILLED = """
import os, signal, sys
from creativelib.labels import Labels
labels = Labels(sys.argv[1], ["a", "b", "c", "d"])
labels.mark("a", "blotchy")
labels.mark_many(["b", "c"], "muddy")
labels.undo()
labels.mark("d", "muddy")
os._exit(3) if sys.argv[2] == "exit" else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("how", "status"), [("exit", 3), ("kill", -signal.SIGKILL)])
def test_labels_survive_a_killed_process(path, how, status):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), how], cwd=ROOT)
    assert done.returncode == status
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = Labels(path, IDS)
    assert labels.labels == {"a": "blotchy", "d": "muddy"}
    assert labels.undo() == "marking 1 as muddy"


def test_a_change_is_on_disk_before_it_shows(labels, path, monkeypatch):
    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        labels.mark("a", "blotchy")
    assert labels.labels == {}


def test_two_objects_share_one_journal(labels, path):
    other = Labels(path, IDS)
    labels.mark("a", "blotchy")
    assert other.labels == {}
    other.mark("b", "muddy")
    assert other.labels == {"a": "blotchy", "b": "muddy"}
    labels.refresh()
    assert labels.labels == other.labels and labels.clusters == other.clusters
    assert labels.undo() == "marking 1 as muddy"


MANY = """
import sys
from creativelib.labels import Labels
labels = Labels(sys.argv[1], range(40))
for image in range(int(sys.argv[2]), 40, 2):
    labels.mark(image, "even" if image % 2 == 0 else "odd")
"""


def test_two_processes_at_once_lose_nothing(path):
    workers = [subprocess.Popen([sys.executable, "-c", MANY, str(path), str(start)], cwd=ROOT) for start in (0, 1)]
    assert [worker.wait() for worker in workers] == [0, 0]
    labels = Labels(path, range(40))
    assert labels.progress == (40, 40) and labels.indices("odd") == list(range(1, 40, 2))


def test_the_order_of_the_ids_does_not_matter_to_the_journal(labels, path):
    labels.mark("a", "blotchy")
    assert fingerprint(IDS) == fingerprint(IDS[::-1]) != fingerprint([*IDS, "e"])
    assert Labels(path, IDS[::-1]).indices("blotchy") == [3]


@pytest.mark.parametrize("ids", [["a", "b", "c"], ["a", "b", "c", "e"]])
def test_a_journal_of_other_images_is_refused_and_left_alone(labels, path, ids):
    labels.mark("a", "blotchy")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="belongs to other images: 4 with fingerprint .* Choose another path"):
        Labels(path, ids)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello", b"hello\n", b"[1]\n", b'{"a": 1}\n', b'{"format": 1', b"\xff\n", b"\n"])
def test_another_file_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no journal of labels"):
        Labels(path, IDS)
    assert path.read_bytes() == content


def test_an_unknown_change_is_refused_each_time(labels, path):
    with path.open("a") as file:
        file.write('{"star": ["a"]}\n')
    for _ in range(2):
        with pytest.raises(ValueError, match="unknown change, {'star': .*newer creativelib"):
            labels.mark("a", "blotchy")
    assert labels.labels == {}


def test_a_journal_that_went_away_or_was_replaced_is_noticed(labels, path):
    labels.mark("a", "blotchy")
    path.rename(path.with_suffix(".old"))
    with pytest.raises(ValueError, match="is gone; make Labels again"):
        labels.mark("b", "blotchy")
    Labels(path, IDS)
    with pytest.raises(ValueError, match="replaced by another file; make Labels again"):
        labels.mark("b", "blotchy")


# --- keeping and replaying --------------------------------------------------------------------------------------------


def test_json_and_back(labels, tmp_path):
    labels.add("muddy")
    labels.mark_many(["d", "a"], "très flou")
    text = labels.to_json()
    assert "très flou" in text
    copy = Labels.from_json(text, tmp_path / "copy")
    assert copy.labels == labels.labels and copy.clusters == labels.clusters and copy.ids == labels.ids
    assert Labels(tmp_path / "copy", IDS).labels == labels.labels
    with pytest.raises(ValueError, match="already has 3 changes; choose another path"):
        Labels.from_json(text, tmp_path / "copy")


GOOD = {"format": "creativelib labels 1", "ids": ["a"], "clusters": ["x"], "labels": {"a": "x"}}


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "3", "{}"]
    + [json.dumps({key: value for key, value in GOOD.items() if key != gone}) for gone in GOOD]
    + [json.dumps(GOOD | change) for change in ({"format": "other"}, {"labels": {"b": "x"}}, {"labels": {"a": "y"}})],
)
def test_other_json_is_refused_and_no_journal_made(path, text):
    with pytest.raises(ValueError, match="^text: .*; give what to_json returned"):
        Labels.from_json(text, path)
    assert not path.exists()


@pytest.fixture
def reference(tmp_path):
    reference = Labels(tmp_path / "reference", IDS)
    reference.mark("a", "blotchy")
    reference.mark_many(["b", "c"], "muddy")
    reference.mark("d", "muddy")
    reference.undo()
    reference.clear("c")
    return reference


def test_reference_labels_are_replayed_and_kept(labels, path, reference):
    assert labels.replay(reference.path) == 2
    assert labels.labels == reference.labels == {"a": "blotchy", "b": "muddy"}
    assert Labels(path, IDS).labels == reference.labels
    assert labels.undo() == "clearing 1"  # change by change, as a reader would have made them


def test_a_readers_labels_are_left_alone(labels, path, reference):
    labels.mark("d", "mine")
    before = path.read_bytes()
    assert Labels(path, IDS).replay(reference.path) == 0
    assert labels.replay(reference.path) == 0
    assert path.read_bytes() == before and labels.labels == {"d": "mine"}


def test_a_replay_is_done_once(labels, path, reference):
    labels.replay(reference.path)
    before = path.read_bytes()
    assert labels.replay(reference.path) == 0
    assert path.read_bytes() == before


def test_what_cannot_be_replayed_is_refused(labels, path, tmp_path):
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        labels.replay(tmp_path / "none")
    Labels(tmp_path / "others", ["a", "b"])
    with pytest.raises(ValueError, match="others belongs to other images: 2 with"):
        labels.replay(tmp_path / "others")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(ValueError, match="text is no journal of labels"):
        labels.replay(tmp_path / "text")
    assert path.read_bytes() == before
