"""How ``creativelib create`` answers a request: runs of the paper's method, each in a folder of its own.

A folder keeps the run (see ``run_folder``), the samples of its baseline (``baseline.safetensors``) and the picture. It answers
to the same request again by going on, and to another one by a refusal that names what differs.
"""

import copy
import hashlib
import io
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from creativelib import storage
from creativelib.cli_request import OPTIONS, RULES, Request
from creativelib.directions import SUFFIXES, NegativeCluster
from creativelib.figures import before_after
from creativelib.finish import save_pictures
from creativelib.generator import Generator, load_generator, positive_prompt
from creativelib.loading import find_device
from creativelib.memory import memory_limit
from creativelib.prior_sampling import PriorSamples, sample_prior
from creativelib.pullback import RULES as RULE_CLASSES
from creativelib.pullback import YesNoChecker, load_checker
from creativelib.run import CreativeRun
from creativelib.run_files import TYPICALITY, remains
from creativelib.run_folder import describe_aims, differences, find_run, require_free
from creativelib.seeds import derive_seed
from creativelib.sources import find_source
from creativelib.spaces import make_space
from creativelib.storage import read_facts
from creativelib.typicality import TypicalityModel

DIMS = 50  # S2.1 of the paper
COLUMNS = 6  # images a row of the picture
CALIBRATION_IMAGES = 64  # plain pictures that set the checker's threshold
CHECK_EVERY = 25  # steps, section 5.3 of the paper
CLUSTER_SAMPLES = 100  # of a run whose result is not wanted
PICTURE, BASELINE, DPI = "before_after.png", "baseline", 150


class Studio:
    """What the runs of one command have in common: the generator, the checker, and what was computed of a baseline.

    Args:
        model, device, memory, anchor, decoder_prompt: as ``load_generator`` takes them.
        progress: show bars.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str | None = None,
        *,
        memory: str | None = None,
        anchor: str | None = None,
        decoder_prompt: str | None = None,
        progress: bool = True,
    ):
        self.source = find_source(model).switched(anchor=anchor, decoder_prompt=decoder_prompt)
        memory_limit(memory, find_device(device))  # what cannot be is refused before a folder is made
        self.device, self.memory, self.progress = device, memory, progress
        self._baselines: dict[str, PriorSamples] = {}
        self._checkers: dict[str, YesNoChecker] = {}

    @cached_property
    def generator(self) -> Generator:
        """The generator, loaded when it is first needed."""
        return load_generator(self.source, device=self.device, memory=self.memory)

    # --- a run in its folder ------------------------------------------------------------------------------------------

    def compare(self, request: Request, folder: Path, *, resume: bool = False) -> dict | None:
        """The facts of the run that is kept in ``folder`` if it answers ``request``; ``None`` where there is none.

        Args:
            resume: what was not said is as it is in the folder, and another target may be said.

        Raises:
            ValueError: the run there is another one; names what differs. OSError: it cannot be read.
        """
        facts = find_run(folder)
        if facts is None:
            return None
        asked = request.with_rule_number(self.source.settings) if resume else request.completed(self.source)
        answered = Request.answered_by(facts["settings"])
        chosen = asked.rule == "alternating" and asked.rule_number is not None
        if answered.rule == "alternating" and facts.get("default_rule") is not False and not chosen:
            answered = replace(answered, rule_number=None)  # the threshold that suits the model
        saved, said = answered.said(), asked.said()
        aims = describe_aims(facts)
        keys = [key for key in said if key != "target"] + ([] if resume or aims else ["target"])
        differing = [f"target is {aims}"] if aims and not resume else []
        differing += differences({key: saved.get(key) for key in keys}, {key: said.get(key) for key in keys})
        if request.clusters or not resume:
            differing += _other_clusters(request.clusters, folder, facts["settings"].get("clusters", []))
        if facts["settings"]["model"] != self.source.name:
            differing.insert(0, f"model is {facts['settings']['model']!r}, not {self.source.name!r}")
        if differing:
            way = "leave these options out" if resume else f"creativelib create --resume --out {shlex.quote(str(folder))}"
            raise ValueError(
                f"out: {folder} holds another run: {'; '.join(differing)}. To go on with that run: {way}. For a new one choose "
                "another folder with --out, or replace that run by --force"
            )
        return facts

    def open(self, request: Request, folder: Path, steps: int, *, resume: bool = False) -> CreativeRun | None:
        """The run that is kept in ``folder`` if it answers ``request``, ready to go on to ``steps`` steps in all, for which the
        checker's threshold is lowered where they are more than it was begun for; ``None`` where there is none.

        Raises:
            As ``compare``.
        """
        facts = self.compare(request, folder, resume=resume)
        if facts is None:
            return None
        weights = facts["settings"].get("weights")  # which an earlier version did not keep
        if other := differences(weights or {}, self.generator.weights, older=weights is None):
            raise ValueError(
                f"out: the run in {folder} was made with other weights of {self.source.name!r} ({'; '.join(other)}); choose "
                "another folder with --out, or replace that run by --force"
            )
        checker, kept = None, facts["settings"]["checker"]
        if kept is not None:
            checker = _with_threshold(self.checker(request.checker or self._known_checker(kept)), kept["threshold"])
        _require_typicality(folder, "out", "replace that run by --force")
        run = CreativeRun.load(folder, generator=self.generator, checker=checker)
        if run.checks and math.ceil(steps / CHECK_EVERY) > run.checks:
            answered = replace(Request.answered_by(facts["settings"]), checker=request.checker or self._known_checker(kept))
            prompt = positive_prompt(run.subject)
            longer = self.calibrated(answered, self.baseline(answered, prompt, folder), prompt, steps)
            run.ask_by(_with_threshold(longer, min(longer.threshold, kept["threshold"])))
        return run.aim(request.target) if resume and request.target is not None else run

    def _known_checker(self, kept: dict) -> str:
        """What to load the checker by that a run was made with: the family's own, or one of the hub by name and commit.

        Raises:
            ValueError: it is somewhere else.
        """
        name, (where, _, commit), own = str(kept.get("name")), kept.get("weights", "").partition(":"), self.source.checker
        if where == "hub":
            return f"{name}@{commit}"
        known = {"pocket": "pocket"} | ({own: own, Path(own).name: own} if own else {})  # by what they are kept as
        if name not in known:
            raise ValueError(f"checker: the run was made with {name!r}, which is none of this model's; name it by --checker")
        return known[name]

    def make(self, request: Request, folder: Path, steps: int) -> CreativeRun:
        """A new run for ``request``, in memory; the baseline is taken from ``folder`` if it is the same."""
        request, generator = request.completed(self.source), self.generator
        prompt, names = positive_prompt(request.subject), cluster_names(request.clusters)
        for where in request.clusters:  # mistakes are told before the baseline takes its time
            content_digest(where)
            if find_run(where) is not None:
                _require_typicality(where, "cluster", "give a folder of its pictures")
        if request.checker != "none":
            self.checker(request.checker)
        space = make_space(request.space, generator, request.subject, request.seed, **_options(request))
        baseline = self.baseline(request, prompt, folder)
        dims = min(DIMS, generator.embedding_dim // 2)  # half only matters for models far smaller than the published
        typicality = TypicalityModel.fit(baseline.embeddings, dims=dims, provenance=baseline.provenance)
        number = () if request.rule_number is None else (request.rule_number,)
        plain_rule = request.rule == "alternating" and not number  # with the threshold that suits the subject
        return CreativeRun(
            generator,
            request.subject,
            space,
            typicality,
            rule=None if plain_rule else RULE_CLASSES[RULES[request.rule]](*number),
            checker=self.calibrated(request, baseline, prompt, steps),
            clusters=[
                self.cluster(where, name, typicality, request) for where, name in zip(request.clusters, names, strict=True)
            ],
            seed=request.seed,
            learning_rate=request.learning_rate,
            prior_steps=request.prior_steps,
            guidance=request.guidance,
            check_every=CHECK_EVERY,
            target=request.target,
        )

    def keep(self, run: CreativeRun, folder: Path, *, force: bool = False) -> None:
        """Write a new ``run``, which ``make`` made, into ``folder``, and its baseline beside it.

        Raises:
            FileExistsError: a run is there, or files that would be overwritten, and not ``force``. OSError: no room.
        """
        baseline = self._baselines[_key(run.typicality.provenance)]
        if not force:  # first: where a run is, the next command goes on with it and writes no baseline
            require_free(folder)
            baseline.save(folder / BASELINE)
        run.save(folder, force=force)
        if force:  # last: the run that is replaced keeps its own until then
            baseline.save(folder / BASELINE)

    def require_free(self, request: Request, folder: Path) -> None:
        """Refuse a folder without a run that holds files which the command would overwrite, before anything is computed.

        Raises:
            FileExistsError: names them.
        """
        wanted = self._baseline_facts(request.completed(self.source))
        names = [remains(folder)] if remains(folder) else []
        try:
            PriorSamples.load(folder / BASELINE, **wanted)
        except FileNotFoundError:
            names += [f"{BASELINE}.json"] if (folder / f"{BASELINE}.json").is_file() else []
        except ValueError:
            names.append(f"{BASELINE}.safetensors")
        pictures = [PICTURE, *(f"creative-{number}{suffix}" for number in range(1, COLUMNS + 1) for suffix in (".png", ".svg"))]
        names += [name for name in pictures if (folder / name).is_file()][:2]
        if names:
            raise FileExistsError(
                f"out: {folder} holds files that would be overwritten ({', '.join(names)}), but no run: the rest of one, or "
                "files of your own; choose another folder with --out, or replace them by --force"
            )

    # --- its parts ----------------------------------------------------------------------------------------------------

    def baseline(self, request: Request, prompt: str, folder: Path) -> PriorSamples:
        """The baseline of section 5.1, sampled once for all runs of the command, or taken from ``folder``."""
        wanted = self._baseline_facts(request)
        key = _key(wanted)
        if key not in self._baselines:
            try:
                self._baselines[key] = PriorSamples.load(folder / BASELINE, **wanted)
            except (FileNotFoundError, ValueError):  # none, of something else, or damaged: made anew
                self._baselines[key] = sample_prior(
                    self.generator,
                    prompt,
                    n=request.n,
                    steps=request.prior_steps,
                    guidance=request.guidance,
                    seed=request.baseline_seed,
                    progress=self.progress,
                )
        return self._baselines[key]

    def _baseline_facts(self, request: Request) -> dict:
        """Where the baseline of a completed request comes from, as ``sample_prior`` says it."""
        return {
            "model": self.generator.name,
            "weights": self.generator.sampling_weights,
            "prompt": positive_prompt(request.subject),
            "steps": request.prior_steps,
            "guidance": request.guidance,
            "seed": request.baseline_seed,
            "n": request.n,
        }

    def checker(self, name: str) -> YesNoChecker:
        """A checker by folder or hub id, loaded once."""
        if name not in self._checkers:
            self._checkers[name] = load_checker(name, memory=self.generator.memory)
        return self._checkers[name]

    def calibrated(self, request: Request, baseline: PriorSamples, prompt: str, steps: int) -> YesNoChecker | None:
        """The checker with a threshold that plain pictures of this generator pass as often as a run of ``steps`` asks."""
        if request.checker == "none":
            return None
        key = repr((request.checker, sorted(baseline.provenance.items()), steps))
        if key not in self._checkers:
            checker, count = self.checker(request.checker), min(CALIBRATION_IMAGES, len(baseline.embeddings))
            plain = self.generator.decode(baseline.embeddings[:count], prompt=prompt, seed=request.baseline_seed)
            self._checkers[key] = checker.calibrated(plain, request.subject, checks=math.ceil(steps / CHECK_EVERY))
        return self._checkers[key]

    def cluster(self, where: Path, name: str, typicality: TypicalityModel, request: Request) -> NegativeCluster:
        """What to keep away from: the pictures in a folder, or what a run in a folder found."""
        options = {"name": name, "alpha": request.alpha, "form": request.form}
        facts = {"content": content_digest(where)}  # refuses a folder that is not there
        if find_run(where) is None:
            facts |= {"source": "folder", "model": self.generator.name, "images": [path.name for path in _pictures(where)]}
            return NegativeCluster.from_folder(self.generator, where, typicality, provenance=facts, **options)
        other = CreativeRun.load(where, generator=self.generator)
        seeds = [derive_seed(0, "negative", index) for index in range(CLUSTER_SAMPLES)]
        facts |= {"source": "run", "subject": other.subject, "run_seed": other.seed, "step": other.result_step, "seed": 0}
        return NegativeCluster.fit(typicality, other.sample(seeds).cpu(), provenance=facts, **options)


def _require_typicality(folder: Path, name: str, instead: str) -> None:
    """Refuse a run that lost its typicality model, in the words of the command, which cannot give it as a script can.

    Raises:
        ValueError: names the option, and says what to do ``instead`` of putting the file back.
    """
    if not (folder / TYPICALITY).is_file():
        raise ValueError(
            f"{name}: the run in {folder} has lost its {TYPICALITY}, without which it cannot be opened; put back a "
            f"copy of the file, or {instead}"
        )


def _pictures(folder: Path) -> list[Path]:
    """Those that ``NegativeCluster.from_folder`` sees."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def cluster_names(folders: Sequence[Path]) -> list[str]:
    """What the clusters of ``folders`` are called: as the folders are, with as many of those above as tell them apart.

    Raises:
        ValueError: one is given twice.
    """
    places = [where.resolve() for where in folders]
    if len(set(places)) < len(places):
        raise ValueError(f"cluster: got {', '.join(map(str, folders))}; give each folder once")
    for parts in range(1, 2 + max((len(place.parts) for place in places), default=0)):
        names = ["/".join(place.parts[-parts:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names


def content_digest(where: Path) -> str:
    """What a cluster is made of, whatever the folder is called: its pictures' bytes, or which run it is and its result.

    Raises:
        FileNotFoundError: no such folder, or neither pictures nor a run in it.
    """
    facts = find_run(where)
    if facts is not None:
        parts = [str(facts.get(key, "")) for key in ("id", "result_step", "settings")]
    elif where.is_dir() and _pictures(where):
        parts = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in _pictures(where))
    else:
        found = f"in {where} is neither a picture nor a run" if where.is_dir() else f"there is no folder {where}"
        raise FileNotFoundError(f"cluster: {found}; give the folder of what is not wanted")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _other_clusters(asked: Sequence[Path], folder: Path, saved: list[dict]) -> list[str]:
    """How the clusters of the run in ``folder`` differ from those asked for: by content, by name where it does not say."""
    names = [cluster["name"] for cluster in saved], cluster_names(asked)
    if len(saved) != len(asked):
        return [f"clusters is {names[0]!r}, not {names[1]!r}"]
    differing = []
    for index, (where, *pair) in enumerate(zip(asked, *names, strict=True)):
        kept = read_facts(folder / "clusters" / str(index)).get("provenance", {}).get("content")
        if kept is None and len(set(pair)) > 1:
            differing.append(f"cluster is {pair[0]!r}, not {pair[1]!r}")
        elif kept is not None and kept != content_digest(where):
            differing.append(f"cluster {pair[0]!r} was made of something else than {where} holds")
    return differing


def _key(facts: dict) -> str:
    """Of a baseline, by the facts that were asked for: it may say more of itself."""
    return repr([facts[name] for name in ("model", "weights", "prompt", "steps", "guidance", "seed", "n")])


def _options(request: Request) -> dict:
    """The options of the request's space that other spaces do not have."""
    name = OPTIONS.get(request.space)
    return {name: getattr(request, name)} if name else {}


def _with_threshold(checker: YesNoChecker, threshold: float) -> YesNoChecker:
    """The same checker with the threshold that a run was begun with."""
    same = copy.copy(checker)
    same.threshold = threshold
    return same


def draw(run: CreativeRun, folder: Path, *, traced: bool = True) -> tuple[float, float]:
    """Write the figure of ``run`` into ``folder``, the frozen model's own pictures above and those of the result below, and
    the latter one by one: ``creative-1.png`` and so on. If ``traced``, those of a model that draws are traced for display,
    and there is ``creative-1.svg``, which an editor of drawings opens.

    Returns:
        Mean surprise of either row, in nats.
    """
    seeds = [derive_seed(run.seed, "figure", column) for column in range(COLUMNS)]
    pairs, images = zip(run.draw_default(seeds), run.draw(seeds), strict=True)
    surprises = [run.typicality.surprise(embeddings) for embeddings in pairs]
    title = f"{run.subject}: {run.result_step} steps in the space {run.space.name!r}, {run.generator.name}, seed {run.seed}"
    traced = traced and run.generator.settings.drawings
    figure = before_after(*images, *(values.tolist() for values in surprises), title=title, traced=traced)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    storage.replace(folder / PICTURE, lambda temporary: temporary.write_bytes(picture.getvalue()))
    save_pictures(images[1], folder, traced=traced)
    before, after = (float(torch.as_tensor(values).mean()) for values in surprises)
    return before, after
