"""The figures hold what they are said to show, checked on the artists and the pixels."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from creativelib.figures import before_after, cloud, evolution, picture_grid
from creativelib.finish import CAPTION
from creativelib.typicality import TypicalityModel


def rendered(figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_before_after_puts_default_above_creative():
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    figure = before_after([red] * 3, [blue] * 3, [40, 41, 42], torch.tensor([60.0, 61, 62]), title="vehicle")
    assert [axis.get_title() for axis in figure.axes] == [f"{n} nats" for n in (40, 41, 42, 60, 61, 62)]
    assert (figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()) == ("default", "creative")
    pixels = rendered(figure)
    rows = [np.argwhere((pixels == colour).all(-1))[:, 0].mean() for colour in ((255, 0, 0), (0, 0, 255))]
    assert rows[0] < rows[1]


def test_traced_pictures_are_called_so():
    red = Image.new("RGB", (16, 16), "red")
    figure = before_after([red], [red], [40], [60], traced=True)
    assert figure.axes[0].images[0].get_size() == (512, 512) and figure.get_supxlabel() == CAPTION
    assert before_after([red], [red], [40], [60]).get_supxlabel() == ""


def test_before_after_refuses_unequal_counts():
    with pytest.raises(ValueError, match="^default_images and the rest: got"):
        before_after([], [], [], [])
    with pytest.raises(ValueError, match=r"\[1, 1, 2, 1\]"):
        before_after([Image.new("RGB", (4, 4))], [Image.new("RGB", (4, 4))], [1, 2], [1])


def test_cloud_draws_both_distributions_where_they_are():
    source = torch.Generator().manual_seed(0)
    baseline = torch.randn(80, 6, generator=source) * torch.tensor([3.0, 2, 1, 1, 1, 1])
    model = TypicalityModel.fit(baseline, dims=3)
    figure = cloud(model, baseline, baseline[:20] + 5)
    drawn = [collection.get_offsets() for collection in figure.axes[0].collections]
    assert [len(points) for points in drawn] == [80, 20]
    np.testing.assert_allclose(drawn[1], model.transform(baseline[:20] + 5)[:, :2], rtol=1e-5)
    assert rendered(figure).std() > 5
    with pytest.raises(ValueError, match="^typicality: has 1 dimension"):
        cloud(TypicalityModel.fit(baseline, dims=1), baseline, baseline)


def test_evolution_puts_the_iterations_side_by_side_on_common_axes():
    source = torch.Generator().manual_seed(0)
    baseline = torch.randn(80, 6, generator=source) * torch.tensor([3.0, 2, 1, 1, 1, 1])
    model = TypicalityModel.fit(baseline, dims=3)
    current = {step: baseline[:20] + step for step in (0, 5, 10)}
    red = Image.new("RGB", (8, 8), "red")
    figure = evolution(model, baseline, current, {0: [red, red], 10: [red]}, title="vehicle")
    assert len(figure.axes) == 9  # a cloud and two images, three times
    assert [axis.get_title() for axis in figure.axes[:3]] == ["iteration 0", "iteration 5", "iteration 10"]
    assert [len(axis.images) for axis in figure.axes[3:]] == [1, 0, 1, 1, 0, 0]
    assert len({axis.get_xlim() + axis.get_ylim() for axis in figure.axes[:3]}) == 1
    for axis, embeddings in zip(figure.axes[:3], current.values(), strict=True):
        points = axis.collections[1].get_offsets()
        np.testing.assert_allclose(points, model.transform(embeddings)[:, :2], rtol=1e-5)
        low, high = np.transpose([axis.get_xlim(), axis.get_ylim()])
        assert (points > low).all() and (points < high).all()
    shown = evolution(model, baseline, current, {0: [red]}, traced=True)
    assert shown.axes[3].images[0].get_size() == (512, 512) and shown.get_supxlabel() == CAPTION
    with pytest.raises(ValueError, match="^current, images: got iterations"):
        evolution(model, baseline, current, {7: [red]})
    with pytest.raises(ValueError, match="^current, images: got iterations"):
        evolution(model, baseline, {})


@pytest.mark.parametrize("latex", [False, True])
def test_any_subject_can_be_drawn(latex):
    title, picture = r"$\frac{$: Ba$$in for $5^$", Image.new("RGB", (8, 8), "red")
    baseline = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    model = TypicalityModel.fit(baseline, dims=3)
    with matplotlib.rc_context({"text.usetex": latex}):
        figures = [
            before_after([picture], [picture], [1], [2], title=title),
            cloud(model, baseline, baseline, title=title),
            evolution(model, baseline, {0: baseline}, title=title),
        ]
        assert all(rendered(figure).std() > 5 for figure in figures)


def test_a_grid_shows_each_picture_in_its_place_with_its_note():
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    rows = {"plain": [red, None, red], "a $5 trick": [blue, blue, blue]}
    figure = picture_grid(rows, columns=["1", "2", "3"], notes={"plain": ["first", "", "third\nline"]}, title="fruit")
    assert [len(axis.images) for axis in figure.axes] == [1, 0, 1, 1, 1, 1]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["1", "2", "3"]
    assert [axis.get_xlabel() for axis in figure.axes[:3]] == ["first", "", "third\nline"]
    assert (figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()) == ("plain", r"a \$5 trick")
    pixels = rendered(figure)
    assert ((pixels == (255, 0, 0)).all(-1).sum() > 500) and ((pixels == (0, 0, 255)).all(-1).sum() > 500)
    small = picture_grid({"a long name of a row": [red, blue]}, side=0.6)
    small.draw_without_rendering()  # a name takes nothing from the pictures beside it
    assert all(0.5 < axis.get_window_extent().width / small.dpi <= 0.6 for axis in small.axes)
    label = small.axes[0].yaxis.label
    assert label.get_rotation() == 0 and label.get_window_extent().x0 >= 0
    headings = [f"{word}, seed {seed}" for word in ("handbag", "pet") for seed in range(3)]
    many = picture_grid({"plain": [red] * 6}, columns=headings, side=0.95)
    many.draw_without_rendering()
    ends = [axis.title.get_window_extent() for axis in many.axes]
    gap = many.dpi / 18  # of four points
    assert all(left.x1 + gap < right.x0 for left, right in zip(ends, ends[1:], strict=False))
    assert [axis.get_title().replace("\n", " ") for axis in many.axes] == headings
    assert max(end.y1 for end in ends) <= many.bbox.y1
    traced = picture_grid(rows, traced=True)
    assert traced.axes[0].images[0].get_size() == (512, 512) and traced.get_supxlabel() == CAPTION


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": {}}, r"^rows: got \[\]"),
        ({"rows": {"a": [None], "b": [None, None]}}, r"^rows: got \[1, 2\]"),
        ({"rows": {"a": [None]}, "columns": ["x", "y"]}, "^columns: got 2 headings for 1"),
        ({"rows": {"a": [None]}, "notes": {"b": ["x"]}}, "^notes: got 1 for the row 'b'"),
    ],
)
def test_a_grid_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        picture_grid(**options)
