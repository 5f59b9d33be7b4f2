"""Creative runs: the surprise rises, seeds are held, the checker ends them, and a killed one resumes bit-equal."""

import json
from itertools import pairwise

import pytest
import torch
from runs import without_times

from creativelib.directions import NegativeCluster
from creativelib.generator import load_generator, positive_prompt
from creativelib.prior_sampling import noise_sources, sample_embeddings, sample_prior
from creativelib.pullback import AlternatingRule, SumRule, Verdict, anchor_threshold
from creativelib.run import CreativeRun
from creativelib.spaces import SPACES, make_space
from creativelib.storage import read_tensors, write_tensors
from creativelib.target import FEWEST
from creativelib.typicality import TypicalityModel


class Checker:
    """Says yes until asked more than ``patience`` times."""

    threshold = 0.5

    def __init__(self, patience: int = 10**6):
        self.patience, self.seen = patience, []

    def check(self, image, subject):
        self.seen.append((image.size, subject))
        probability = 0.9 if len(self.seen) <= self.patience else 0.1
        return Verdict(probability >= self.threshold, probability)


@pytest.fixture
def disliked(typicality):
    """Builds a cluster beside the middle of the baseline."""

    def build(seed=0, **options):
        rows = 0.3 * typicality.sample(12, torch.Generator().manual_seed(seed))
        middle = 0.7 * typicality.sample(1, torch.Generator().manual_seed(50))
        return NegativeCluster.fit(typicality, rows + middle, **options)

    return build


@pytest.mark.parametrize(("space", "learning_rate"), [("lora", 3e-3), ("subject-token", 5e-2)])
def test_surprise_rises_for_the_same_noise(make, typicality, space, learning_rate):
    run = make(space, learning_rate=learning_rate).run(30, progress=False)
    before, after = (typicality.surprise(run.sample([7, 8, 9, 10], step)).mean() for step in (0, 30))
    assert after > before + 1
    assert [row["step"] for row in run.history] == list(range(30)) and run.result_step == 30
    row = run.history[3]
    assert row["loss"] == pytest.approx(-row["surprise"]) and row["kind"] == "sum" and row["gradient_norm"] > 0
    assert row["anchor_cosine"] == pytest.approx(1 - row["anchor_loss"]) and 0 <= row["residual_energy"] <= 1
    assert len({row["noise_seed"] for row in run.history}) == 30  # fresh noise at every step


def test_the_seed_is_held_until_it_is_pulled_back(make):
    first = make().step()["anchor_loss"]
    run = make(rule=AlternatingRule(first - 1e-3)).run(40, progress=False)
    for row, following in pairwise(run.history):
        held = row["anchor_loss"] > run.rule.threshold
        assert row["kind"] == ("anchor" if held else "creative")
        assert following["held"] == held == (row["noise_seed"] == following["noise_seed"])
    assert {row["kind"] for row in run.history} == {"anchor", "creative"}


@pytest.mark.parametrize("space", ["lora", "subject-token"])
def test_a_held_sample_is_pulled_back_after_a_long_push(make, space):
    """With one optimiser for both losses the momentum of the creative steps carries the sample on, away from the anchor."""
    run = make(space, rule=AlternatingRule(2.0), learning_rate=3e-3).run(20, progress=False)  # 2: never held
    run.rule = AlternatingRule(0.0)  # always held
    run.run(30, progress=False)
    held = [row["anchor_cosine"] for row in run.history if row["kind"] == "anchor"]
    assert len(held) == 10 and len({row["noise_seed"] for row in run.history[20:]}) == 1
    assert held[-1] > held[0] and sum(held[5:]) > sum(held[:5])  # a step of AdamW may overshoot a little


def test_the_default_rule_lets_99_of_100_plain_samples_pass(make, small_generator, typicality):
    """Of the model's own samples: the Gaussian's lie elsewhere, and would say something else."""
    rule, text = make(rule=None).rule, make().text_embedding
    assert isinstance(rule, AlternatingRule)
    drawn = sample_prior(small_generator, positive_prompt("vehicle"), n=2000, seed=9, progress=False).embeddings
    losses = 1 - torch.nn.functional.cosine_similarity(drawn, text)
    assert 0.98 < float((losses <= rule.threshold).float().mean()) < 0.998
    gaussian = anchor_threshold(typicality.sample(1000, torch.Generator().manual_seed(0)), text)
    assert abs(rule.threshold - gaussian) > 1e-3
    assert make(rule=None, guidance=1.0).rule.threshold != rule.threshold


def test_the_default_is_the_frozen_models_own_in_every_space_and_is_drawn_as_such(small_generator, typicality):
    """Of an adjective token not even step 0 is."""
    text = small_generator.encode_text(positive_prompt("vehicle"))
    with torch.no_grad():
        expected = sample_embeddings(small_generator, text, noise_sources([1, 2]))

    def alike(images, others):
        return [image.tobytes() for image in images] == [image.tobytes() for image in others]

    decode = small_generator.decode
    for name in SPACES:
        run = CreativeRun(
            small_generator, "vehicle", make_space(name, small_generator, "vehicle"), typicality, rule=SumRule(0.0)
        )
        run.run(1, progress=False)
        assert torch.equal(run.default([1, 2]), expected)
        embeddings, images = run.draw([3, 4], 1)
        assert torch.equal(embeddings, run.sample([3, 4], 1)) and alike(images, decode(embeddings, seed=[3, 4]))
        assert torch.equal(run.draw_default([1, 2])[0], expected)
        assert alike(run.draw_default([1, 2])[1], decode(expected, seed=[1, 2]))
        assert torch.allclose(run.sample([1, 2], 0), expected) == (name not in ("adjective-token", "embedding"))


def test_parts_that_do_not_belong_together_are_refused(small_generator, miniature_folders, typicality):
    def space(subject="vehicle", generator=small_generator):
        return make_space("subject-token", generator, subject)

    def build(subject="vehicle", generator=small_generator, of=None, typical=typicality):
        return CreativeRun(generator, subject, of or space(), typical, rule=SumRule(0.0))

    with pytest.raises(ValueError, match="^space: it is one of 'vehicle', not of 'fruit'"):
        build("fruit")
    with pytest.raises(ValueError, match="^typicality: the prompt of its baseline is '.*a vehicle.*', not '.*a fruit"):
        build("fruit", of=space("fruit"))
    with pytest.raises(ValueError, match="^subject: got ''"):
        build("")
    other = load_generator(miniature_folders["2.1"], device="cpu")
    with pytest.raises(ValueError, match="^space: it belongs to another generator"):
        build(generator=other)
    for typical, message in (
        (typicality, "the model of its baseline is '2.2', not '2.1'"),
        (TypicalityModel.fit(torch.randn(30, 16), dims=3), "it is of embeddings of width 16, the generator's have 24"),
        (TypicalityModel.fit(torch.randn(30, 24), dims=3, provenance={"weights": "sha256:0"}), "the weights of its baseline"),
    ):
        with pytest.raises(ValueError, match=f"^typicality: {message}"):
            build(generator=other, of=space(generator=other), typical=typical)
    assert build(" a vehicle ").subject == " a vehicle "  # the same words


def test_a_no_ends_the_run_and_keeps_the_last_accepted_snapshot(make):
    checker = Checker(patience=4)
    run = make(checker=checker, check_every=5, check_images=2, snapshot_every=100).run(60, progress=False)
    assert (run.stopped, run.steps, run.result_step) == ("checker", 15, 10)
    assert [row["check"] for row in run.history if row["check"] is not None] == pytest.approx([0.9, 0.9, 0.1])
    assert checker.seen == [((32, 32), "vehicle")] * 6
    assert torch.equal(run.sample([1]), run.sample([1], 10)) and not torch.equal(run.sample([1]), run.sample([1], 15))


def test_the_checker_is_asked_at_the_end_too(make):
    run = make(checker=Checker(patience=0), check_every=25).run(3, progress=False)
    assert (run.stopped, run.steps, run.result_step) == ("checker", 3, 0)


@pytest.mark.parametrize("drive", ["run", "iterate"])
def test_the_checker_is_asked_where_a_target_ends_the_run(make, drive):
    for patience, expected in ((0, ("checker", 0)), (10, ("target", FEWEST + 1))):
        checker = Checker(patience)
        run = make(target=-1e6, checker=checker, check_images=1)
        run.run(30, progress=False) if drive == "run" else list(run.iterate(30))
        assert (run.stopped, run.result_step) == expected and run.steps == FEWEST + 1 and len(checker.seen) == 1


def test_the_checker_is_asked_where_the_loss_ends_the_run(make):
    for patience, result in ((0, 0), (10, 2)):
        run = make(checker=Checker(patience), check_images=1)
        run.run(2, progress=False) if patience else list(zip(range(2), run.iterate(3), strict=False))
        run.rule = lambda creative, anchor: (creative * float("nan"), "sum", False)
        run.run(5, progress=False)
        assert (run.stopped, run.steps, run.result_step) == ("not finite", 2, result)


def test_samples_that_are_not_finite_are_not_drawn_and_not_accepted(make, monkeypatch):
    run = make(checker=Checker(), check_every=2, check_images=2).run(2, progress=False)
    sample = run.generator.sample
    monkeypatch.setattr(
        run.generator,
        "sample",
        lambda condition, sources, **options: sample(condition, sources, **options) * (1 if len(sources) == 1 else torch.inf),
    )
    run.run(4, progress=False)
    assert (run.stopped, run.steps, run.result_step) == ("not finite", 4, 2)


def test_a_run_that_has_ended_takes_no_further_step(make):
    run = make(checker=Checker(patience=0), check_every=2, check_images=1).run(9, progress=False)
    before = run.space.state_dict()
    with pytest.raises(RuntimeError, match=r"^step: the run has ended \(checker\)"):
        run.step()
    assert run.steps == 2 and all(torch.equal(before[name], tensor) for name, tensor in run.space.state_dict().items())


def test_an_interrupted_check_is_made_up_for(make, tmp_path):
    class Interrupted(Checker):
        def check(self, image, subject):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(checker=Interrupted(), check_every=3).run(9, progress=False, folder=tmp_path)
    refusing = Checker(patience=0)
    refusing.__class__.__name__ = "Interrupted"  # the same checker, by name
    run = make(checker=refusing, check_every=3).run(9, progress=False, folder=tmp_path)
    assert (run.stopped, run.steps, run.result_step) == ("checker", 3, 0)


def test_a_target_stops_and_holds(make, typicality):
    start = make().step()["surprise"]
    run = make(target=start - 5).run(30, progress=False)
    assert run.stopped == "target" and FEWEST < run.steps < 30
    assert any(row["gradient_norm"] == 0 for row in run.history)


def test_a_dial_is_turned_on_and_a_run_that_ended_otherwise_stays_ended(make):
    start = make().step()["surprise"]
    run = make(target=start - 5).run(30, progress=False)
    there = run.steps
    assert run.aim(start + 3).stopped == "" and run.run(60, progress=False).steps > there
    assert run.settings["target"] == start + 3 and run.history[-1]["surprise"] > run.history[there - 1]["surprise"]
    run = make(checker=Checker(patience=0), check_every=5, target=start - 5).run(30, progress=False)
    assert run.aim(None).stopped == "checker"


def test_a_run_knows_the_targets_that_it_had(make, tmp_path):
    run = make(target=500).aim(1000).run(2, progress=False, folder=tmp_path)
    assert run.aims == [(0, 1000.0)]  # before the first step it is as if it had been made so
    assert make(target=1000).run(3, progress=False, folder=tmp_path).steps == 3
    again = CreativeRun.load(tmp_path, generator=run.generator).aim(None).run(4, progress=False, folder=tmp_path)
    assert again.aims == [(0, 1000.0), (3, None)] == CreativeRun.load(tmp_path, generator=run.generator).aims
    with pytest.raises(ValueError, match="holds a run whose target is 1000 at first, none from step 3 on; open it by"):
        make().run(5, progress=False, folder=tmp_path)


def test_sampling_a_snapshot_leaves_the_search_where_it_is(make):
    run = make(snapshot_every=2).run(4, progress=False)
    before = run.space.state_dict()
    run.sample([1], 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.space.state_dict().items())
    assert sorted(run.snapshots) == [0, 2, 4]
    with pytest.raises(ValueError, match=r"^step: got 3; snapshots exist for \[0, 2, 4\]"):
        run.sample([1], 3)


@pytest.mark.parametrize(("form", "sign"), [("repel", 1), ("bounded", 1), ("literal", -1)])
def test_a_cluster_pushes_as_its_form_says(make, disliked, form, sign):
    """A target that is long reached leaves the cluster as the only push."""
    cluster = disliked(form=form)
    run = make(clusters=[cluster], target=-1e6, learning_rate=3e-3).run(9, progress=False)
    before, after = (float(cluster.distance(run.sample([7, 8, 9, 10], step)).mean()) for step in (0, 9))
    assert sign * (after - before) > 0.01 and all(row["gradient_norm"] > 0 for row in run.history)


def test_clusters_are_part_of_the_creative_loss_and_of_the_history(make, disliked):
    clusters = [disliked(name="busy", alpha=0.5), disliked(1, name="grey", form="bounded")]
    run = make(rule=SumRule(2.0), clusters=clusters).run(3, progress=False)
    for row in run.history:  # Eq. 8
        assert row["loss"] == pytest.approx(-row["surprise"] + row["negative_loss"] + 2 * row["anchor_loss"], abs=1e-4)
    with torch.no_grad():
        embedding = run.sample([run.history[0]["noise_seed"]], 0)
        losses = sum(float(cluster.loss(embedding)) for cluster in clusters)
        distances = {cluster.name: float(cluster.distance(embedding)) for cluster in clusters}
    assert run.history[0]["negative_loss"] == pytest.approx(losses, rel=1e-4)
    assert run.history[0]["cluster_distance"] == pytest.approx(distances, rel=1e-4)
    plain = make().run(1, progress=False).history[0]
    assert plain["negative_loss"] == 0.0 and plain["cluster_distance"] == {} and plain["loss"] == -plain["surprise"]


def test_an_anchor_step_leaves_the_clusters_out(make, disliked):
    with_cluster, without = (
        make(rule=AlternatingRule(0.0), clusters=clusters).run(3, progress=False) for clusters in ([disliked()], [])
    )
    assert [row["loss"] for row in with_cluster.history] == [row["anchor_loss"] for row in without.history]
    state = without.space.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in with_cluster.space.state_dict().items())
    row = make(rule=AlternatingRule(2.0), clusters=[disliked()]).step()
    assert row["kind"] == "creative" and row["loss"] == pytest.approx(-row["surprise"] + row["negative_loss"], abs=1e-4)


def test_clusters_that_do_not_fit_are_refused(make, disliked, typicality):
    other = TypicalityModel.fit(typicality.sample(50, torch.Generator().manual_seed(0)), dims=6)
    rows = typicality.sample(4, torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="^cluster 'grey' belongs to another PCA space"):
        make(clusters=[disliked(), NegativeCluster.fit(other, rows, name="grey")])
    with pytest.raises(ValueError, match=r"^clusters: got the names \['unappealing', 'unappealing'\]; give each"):
        make(clusters=[disliked(), disliked(1)])


def test_a_distance_that_is_not_finite_stops_before_the_update(make, typicality, tmp_path):
    """The bounded loss of a cluster that is far too narrow is 0, its distance is more than float32 holds."""
    narrow = NegativeCluster(typicality, torch.zeros(6), torch.eye(6).double() * 1e-80, n=1, form="bounded")
    run = make(clusters=[narrow]).run(3, progress=False, folder=tmp_path)
    assert (run.stopped, run.steps) == ("not finite", 0)


@pytest.mark.parametrize(("space", "repelled"), [("lora", False), ("adjective-token", False), ("lora", True)])
def test_a_resumed_run_ends_bit_equal(make, disliked, tmp_path, space, repelled):
    options = {"rule": None, "checker": Checker(), "check_every": 4, "snapshot_every": 3}
    options["clusters"] = [disliked(name="busy"), disliked(1, name="grey", form="bounded")] if repelled else []
    whole = make(space, **options).run(12, progress=False)
    make(space, **options).run(7, progress=False).save(tmp_path)
    again = make(space, **options).resume(tmp_path)
    # The end of a run asks the checker once more than a run that goes on; that answer changes nothing.
    assert again.steps == 7 and again.history[6]["check"] == 0.9
    again.history[6]["check"] = None
    again.run(12, progress=False)
    assert without_times(again.history) == without_times(whole.history)
    for name, tensor in whole.space.state_dict().items():
        assert torch.equal(tensor, again.space.state_dict()[name])


def test_a_killed_run_resumes_from_its_last_save(make, tmp_path):
    whole = make().run(9, progress=False)
    killed = make(check_every=3)
    for _ in killed.iterate(9):
        if killed.steps == 6:
            killed.save(tmp_path)
        if killed.steps == 8:
            break  # never saved again
    again = make(check_every=3).resume(tmp_path).run(9, progress=False)
    assert without_times(again.history) == without_times(whole.history)
    assert all(torch.equal(tensor, again.space.state_dict()[name]) for name, tensor in whole.space.state_dict().items())


def test_resume_refuses_another_run(make, tmp_path):
    make().run(2, progress=False, folder=tmp_path)
    with pytest.raises(ValueError, match="seed is 0, not 3"):
        make(seed=3).resume(tmp_path)
    with pytest.raises(FileNotFoundError):
        make().resume(tmp_path / "absent")


def test_resume_refuses_other_clusters(make, disliked, tmp_path):
    make(clusters=[disliked()]).run(2, progress=False, folder=tmp_path)
    for others in ([], [disliked(alpha=2)], [disliked(form="literal")], [disliked(1)], [disliked(), disliked(1, name="grey")]):
        with pytest.raises(ValueError, match=r"clusters is \[\{'name': 'unappealing'"):
            make(clusters=others).resume(tmp_path)
    assert make(clusters=[disliked()]).resume(tmp_path).steps == 2


def test_a_file_from_before_there_were_clusters_resumes_without(make, disliked, tmp_path):
    make().run(2, progress=False).save(tmp_path)
    tensors, facts = read_tensors(tmp_path / "run")
    del facts["settings"]["clusters"]
    write_tensors(tmp_path / "run", tensors, facts)
    assert make().resume(tmp_path).run(3, progress=False).steps == 3
    with pytest.raises(ValueError, match=r"clusters is \[\], not"):
        make(clusters=[disliked()]).resume(tmp_path)


def test_interruption_keeps_what_was_done(make, tmp_path, monkeypatch):
    run = make()
    step = run.step

    def interrupted():
        if run.steps == 3:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(run, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(9, progress=False, folder=tmp_path)
    assert run.steps == run.result_step == 3
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["steps"] == 3 and facts["settings"]["subject"] == "vehicle"
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3
    assert make().resume(tmp_path).run(4, progress=False).steps == 4


def test_a_loss_that_is_not_finite_stops_before_the_update(make):
    run = make(learning_rate=1e-3)
    run.run(2, progress=False)
    before = run.space.state_dict()
    run.rule = lambda creative, anchor: (creative * float("nan"), "sum", False)
    assert list(run.iterate(5)) == [] and run.stopped == "not finite" and run.steps == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in run.space.state_dict().items())


@pytest.mark.parametrize("bad", [{"check_every": 0}, {"snapshot_every": -1}, {"learning_rate": 0.0}, {"check_images": 1.5}])
def test_bad_arguments_are_named(make, bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))}: got"):
        make(**bad)
    with pytest.raises(ValueError, match="^steps: got 0"):
        make().run(0, progress=False)
