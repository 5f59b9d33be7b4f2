"""The labelling widget without a browser: what it answers to what the page sends, and what a static page shows."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from creativelib.labelling import FRAME, GAP, TILE, Labelling
from creativelib.labels import COLOURS, Labels

IDS = ["a", "b", "c", "d"]
IMAGES = [Image.new("RGB", (300, 150), colour) for colour in ("red", "lime", "blue", "yellow")]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def labels(tmp_path):
    return Labels(tmp_path / "labels.jsonl", IDS)


@pytest.fixture
def widget(labels):
    return Labelling(labels, IMAGES)


def send(widget, **message):
    """As the page sends it. Returns the state that the page is then given."""
    widget._handle_custom_msg(message, [])
    return widget.state


def journal(widget):
    return Labels(widget.labels.path, IDS).labels


def test_at_first_nothing_is_marked(widget):
    assert widget.ids == IDS and widget.points == [] and widget.actions == []
    assert widget.state["labels"] == {} and widget.state["progress"] == "0 of 4 marked; A cluster 1: 0"
    assert widget.state["clusters"] == [{"name": "cluster 1", "colour": COLOURS[0], "sign": "A"}]
    assert len(widget.labels.path.read_text().splitlines()) == 1  # showing it changes no labels
    sizes = [Image.open(io.BytesIO(picture)).size for picture in widget.pictures]
    assert sizes == [(192, 96)] * 4 and IMAGES[0].size == (300, 150)


def test_a_mark_is_journalled_before_it_shows(widget):
    shown = []
    widget.observe(lambda change: shown.append((change["new"]["labels"], journal(widget))), names="state")
    send(widget, do="toggle", image="b")
    send(widget, do="toggle", image="b")  # again: to clear
    assert shown == [({"b": "cluster 1"},) * 2, ({},) * 2]


def test_what_cannot_be_journalled_does_not_show(widget, monkeypatch):
    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    state = send(widget, do="toggle", image="b")
    assert state["labels"] == {} and state["error"] == "No space left on device"


def test_clusters_are_named_chosen_and_marked_into(widget):
    send(widget, do="toggle", image="a")
    state = send(widget, do="cluster", name="  too  muddy ")
    assert state["cluster"] == "too muddy" and [cluster["sign"] for cluster in state["clusters"]] == ["A", "B"]
    send(widget, do="toggle", image="b")
    state = send(widget, do="toggle", image="a")  # out of the other cluster
    assert state["labels"] == {"a": "too muddy", "b": "too muddy"}
    assert state["progress"] == "2 of 4 marked; A cluster 1: 0, B too muddy: 2"
    assert send(widget, do="cluster", name="cluster 1")["cluster"] == "cluster 1"
    assert send(widget, do="cluster", name=" ")["error"].startswith("cluster: got ' '; give a name")


def test_the_default_cluster_goes_when_another_is_named_first(widget):
    state = send(widget, do="cluster", name="blotchy")
    assert [cluster["name"] for cluster in state["clusters"]] == ["blotchy"]


def test_a_lasso_is_one_change(widget):
    assert list(send(widget, do="mark", images=["a", "c", "d"])["labels"]) == ["a", "c", "d"]
    state = send(widget, do="undo")
    assert state["labels"] == {} and state["note"] == "Took back: marking 3 as cluster 1."
    assert send(widget, do="undo")["note"] == "There is nothing to take back."


def test_undoing_the_naming_leaves_the_cluster(widget):
    send(widget, do="toggle", image="a")
    send(widget, do="cluster", name="muddy")
    assert send(widget, do="undo")["cluster"] == "cluster 1"
    assert send(widget, do="undo")["cluster"] == "cluster 1" and widget.state["labels"] == {}


def test_every_message_changes_the_state(widget):
    """Else the page would wait for an answer for ever."""
    states = [send(widget, do="mark", images=["a"])["turn"] for _ in range(2)]
    assert states == [1, 2]


@pytest.mark.parametrize(
    "message",
    [{"do": "toggle", "image": "e"}, {"do": "mark", "images": []}, {"do": "mark", "images": ["e"]}, {"do": "cluster"}]
    + [{"do": "fit"}, {"do": "toggle", "image": ["a"]}, {"do": "other"}, {}, {"do": "cluster", "name": None}],
)
def test_a_wrong_message_is_answered_by_an_error(widget, message):
    assert send(widget, **message)["error"] and widget.labels.labels == {}
    assert send(widget, do="undo")["error"] == ""  # and the next one is not


def test_the_buttons_call_with_the_labels_and_show_how_it_went(labels):
    seen = []
    widget = Labelling(
        labels,
        IMAGES,
        on_fit=lambda labels: seen.append((widget.state["busy"], labels.labels)) or "Fitted.",
        on_run=lambda labels: seen.append((widget.state["busy"], widget.state["note"])),
    )
    assert widget.actions == ["fit", "run"]
    assert send(widget, do="fit")["error"] == "No image is marked yet; mark one or more, then fit." and not seen
    send(widget, do="toggle", image="a")
    state = send(widget, do="fit")
    assert seen == [("fit", {"a": "cluster 1"})] and (state["busy"], state["note"], state["error"]) == ("", "Fitted.", "")
    assert send(widget, do="run")["note"] == "Run again: finished in 0 s."
    assert seen[1] == ("run", "Marking waits until it has finished.") and widget.state["busy"] == ""


@pytest.mark.parametrize(
    ("error", "words"), [(KeyError("seed"), "KeyError: 'seed'"), (KeyboardInterrupt(), "Interrupted before it was finished.")]
)
def test_an_error_of_a_button_is_shown_and_kept(labels, error, words):
    def run(_):
        raise error

    widget = Labelling(labels, IMAGES, on_run=run)
    state = send(widget, do="run")
    assert (state["error"], state["note"], state["busy"]) == (words, "", "")
    assert widget.failure is error
    assert send(widget, do="toggle", image="a")["error"] == ""  # and it goes on


def test_what_code_and_others_change_is_shown_by_refresh(widget):
    Labels(widget.labels.path, IDS).mark("c", "elsewhere")
    assert widget.state["labels"] == {}
    widget.refresh()
    assert widget.state["labels"] == {"c": "elsewhere"} and widget.state["cluster"] == "elsewhere"


def test_without_a_reader_reference_labels_are_replayed(widget, tmp_path):
    reference = Labels(tmp_path / "reference", IDS)
    reference.mark_many(["a", "d"], "blotchy")
    assert widget.labels.replay(reference.path) == 2
    data, _ = widget._repr_mimebundle_()  # shown again
    assert data["text/plain"] == "Labelling: 2 of 4 marked; A blotchy: 2"


def test_labels_that_were_kept_are_shown(labels):
    labels.mark("a", "blotchy")
    labels.mark("b", "muddy")
    widget = Labelling(Labels(labels.path, IDS), IMAGES)
    assert widget.state["labels"] == {"a": "blotchy", "b": "muddy"} and widget.cluster == "muddy"


def test_static_pages_show_the_grid_with_frames_and_letters(widget):
    send(widget, do="toggle", image="b")
    send(widget, do="cluster", name="muddy")
    send(widget, do="toggle", image="c")
    data, metadata = widget._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == data["text/plain"]  # for who cannot see the picture
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["text/plain"] == "Labelling: 2 of 4 marked; A cluster 1: 1, B muddy: 1"
    picture = Image.open(io.BytesIO(data["image/png"]))
    step = TILE + 2 * FRAME + GAP
    middles = [picture.getpixel((GAP + step * index + step // 2, GAP + step // 2)) for index in range(4)]
    assert middles == [image.getpixel((0, 0)) for image in IMAGES]
    frames = [picture.getpixel((GAP + step * index + step // 2, GAP + 1)) for index in range(4)]
    assert frames == [ImageColor.getrgb(colour) for colour in ("white", COLOURS[0], COLOURS[1], "white")]
    corners = [picture.crop((GAP + step * index, GAP, GAP + step * index + 24, GAP + 24)) for index in (1, 2)]
    whites = [np.asarray(corner).min(axis=2) > 240 for corner in corners]
    assert all(white.sum() > 20 for white in whites) and (whites[0] != whites[1]).any()  # letters, and different ones
    assert widget.picture(columns=2).width == 2 * step + GAP and widget.picture(columns=1).height > 4 * step


def test_points_go_to_the_page_as_they_are(labels):
    points = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])
    assert Labelling(labels, IMAGES, points).points == points.tolist()


@pytest.mark.parametrize("points", [np.zeros((4, 3)), np.zeros((3, 2)), np.zeros(4), np.full((4, 2), np.nan)])
def test_wrong_points_are_refused(labels, points):
    with pytest.raises(ValueError, match=r"points: got the shape .*; give finite numbers, \(4, 2\)"):
        Labelling(labels, IMAGES, points)


def test_images_must_be_as_many_as_the_ids(labels):
    with pytest.raises(ValueError, match="images: got 3; give one for each of the 4 ids"):
        Labelling(labels, IMAGES[:3])


def test_the_page_needs_no_network_and_the_module_no_torch(widget):
    assert "export default" in widget._esm and ".creativelib-labelling" in widget._css
    assert "http" not in widget._css and set(part.split('"')[0] for part in widget._esm.split('"http')[1:]) == {
        "://www.w3.org/2000/svg"  # a name, not an address
    }
    code = "import sys, json, creativelib.labelling; print(json.dumps(['torch' in sys.modules, 'diffusers' in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]
