"""One creative optimisation, kept in a folder: saved, resumed, opened again (sections 5 and 6 of the paper)."""

import math
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from tqdm.auto import tqdm

from creativelib.arguments import whole_number
from creativelib.directions import NegativeCluster
from creativelib.loading import disk_is_full
from creativelib.pullback import RULES, Rule, YesNoChecker
from creativelib.reopening import generator_of
from creativelib.run_files import STATE, replacing
from creativelib.run_folder import (
    FORMAT,
    SOFT,
    History,
    describe_aims,
    differences,
    find_run,
    hold,
    read_state,
    require_free,
    require_held,
    write_state,
)
from creativelib.search import Search
from creativelib.searchable import Searchable
from creativelib.snapshots import Snapshots
from creativelib.spaces import LoRA, make_space
from creativelib.storage import real_path
from creativelib.typicality import TypicalityModel
from creativelib.typicality_alternatives import load_typicality

SAVE_EVERY = 25  # steps between saved states, where these are small
STATE_BYTES = 150 * 10**6  # what the states of 1,000 steps may take; large ones are written less often


class NotSaved(OSError):
    """A run could not be written; everything is still in memory.

    Attributes:
        folder: which one. reason: in words. saved_step: of the last state in the folder.
    """

    def __init__(self, folder: Path, steps: int, saved_step: int, error: OSError):
        self.folder, self.reason, self.saved_step = folder, error.strerror or str(error), saved_step
        first = "make room there" if disk_is_full(error) else "mend that"
        super().__init__(
            f"folder: cannot write to {folder} ({self.reason}). The {steps} steps done are kept in memory: {first} and call "
            "save(), or save(another folder)."
        )


class CreativeRun(Search):
    __doc__ = Search.__doc__

    folder: Path | None = None  # where it is kept
    _id = ""  # which run it is
    _mark = _tried = ""  # of the last save, and of the last attempt at one: tell whether a folder holds what this object knows
    _saved_step = 0  # of the state on the disk
    _unsaved = False  # the user was told so
    _history: History | None = None
    _absent: dict = {}  # settings of a loaded run whose parts were not given: rule, checker

    def run(
        self, steps: int = 50, *, progress: bool = True, folder: str | Path | None = None, force: bool = False
    ) -> "CreativeRun":
        """Search until ``steps`` steps are done in all (up to 1,000 in the paper; results show within 50).

        Args:
            progress: show a bar with surprise (nats) and anchor similarity (cosine).
            folder: where the run is kept, see ``run_folder``. Where a run of the same settings is there already, this one,
                if it has made no steps itself, goes on with it. Snapshots and history are written as they come, the state to
                go on from every ``save_every`` steps and at the end. No other process can use the folder meanwhile.
            force: replace another run that is in the folder.

        Raises:
            ValueError: the folder holds a run with other settings; names them. FileExistsError: this run has made steps that
                are not those in the folder, or there are files of a run without the run. FolderInUse: another process works
                there.
            OSError: the folder cannot be written to: at once at the start; later there is a warning, the search goes on in
                memory and tries again, and this is raised if it still fails at the end. ``save`` can be called then.
            KeyboardInterrupt: passed on, after what was done has been kept (and saved).
        """
        steps = whole_number("steps", steps, 1)  # before there is anything in a folder
        with nullcontext() if folder is None else hold(folder) as there:
            if there is not None:
                self._settle(there, force)
            try:
                with tqdm(total=steps, initial=self.steps, desc="searching", unit="step", disable=not progress) as bar:
                    for row in self.iterate(steps):
                        bar.set_postfix_str(
                            f"surprise {row['surprise']:.1f} nats, anchor {row['anchor_cosine']:.3f}", refresh=False
                        )
                        bar.update()
                        if there is not None:
                            self._save_in_passing()
            finally:
                self.keep_snapshot()
                if there is not None:
                    self.save()
        return self

    def step(self) -> dict:
        for part in self._absent:
            raise ValueError(f"{part}: this run was made with one; to go on, load it with {part}=...")
        return super().step()

    @property
    def settings(self) -> dict:
        return {**super().settings, **self._absent}

    # --- saving -------------------------------------------------------------------------------------------------------

    @property
    def save_every(self) -> int:
        """Steps between saved states: ``SAVE_EVERY``, more where a state is large."""
        return max(SAVE_EVERY, math.ceil(1000 * sum(tensor.nbytes for tensor in self._state().values()) / STATE_BYTES))

    def save(self, folder: str | Path | None = None, *, force: bool = False) -> Path:
        """Write all that is not written yet; returns the file of the state.

        Args:
            folder: by default the one that the run is kept in. force: replace another run that is there.

        Raises:
            ValueError: no folder yet. FileExistsError: there is another run, or another process went on with this one, or there
                are files of a run without the run.
            FolderInUse: another process works there. OSError: it cannot be written; everything is still in memory.
        """
        if folder is None and self.folder is None:
            raise ValueError("folder: got None, and the run is in none yet; give a folder")
        with hold(self.folder if folder is None else folder) as there:
            if not self._claim(there, force):
                self._write()
        return there / STATE

    def _settle(self, folder: Path, force: bool) -> None:
        """Go on with the run that is in ``folder``, or start there: after this the folder is ours, and can be written to."""
        if self.steps == 0 and not force and find_run(folder) is not None and not self._is_ours(folder):
            self.resume(folder)
        self._claim(folder, force)

    def _is_ours(self, folder: Path) -> bool:
        """Whether ``folder`` holds what this object last wrote or read."""
        try:
            facts = find_run(folder) if folder == self.folder else None
        except ValueError:  # damaged
            return False
        return facts is not None and facts.get("id", "") == self._id and _mark(facts) in (self._mark, self._tried)

    def _claim(self, folder: Path, force: bool) -> bool:
        """Make a locked ``folder`` the one that this run writes to; returns whether a first state was written for it.

        What is there stays until that is on the disk, see ``run_files``.
        """
        ours = self._is_ours(folder)
        if ours and self._id:
            self.snapshots.forget_later(self.steps)
            return False
        if not ours and not force:
            require_free(folder)
        before = self.folder, self._id, self._mark, self._saved_step, self._history
        self.snapshots.move_to(folder / "snapshots")
        with self._told(folder), replacing(folder):
            try:
                self.folder, self._id, self._mark, self._history = folder, uuid.uuid4().hex, "", History(folder)
                self._write()
            except BaseException:
                self.folder, self._id, self._mark, self._saved_step, self._history = before
                self._tried = self._mark
                self.folder = self.folder or folder  # where ``save`` tries again
                self.snapshots.move_to(self.folder / "snapshots")  # out of the files, which go now
                raise
        return True

    def _save_in_passing(self) -> None:
        """What a step leaves to write. If it fails, say so once and go on: the next time, or the end, writes all of it."""
        due = self.steps - self._saved_step >= self.save_every
        if not due and self.steps % self.snapshot_every:
            return
        try:
            self._write(state=due)
            self._unsaved = False
        except NotSaved as error:
            if not self._unsaved:
                warnings.warn(
                    f"folder: cannot write to {self.folder} ({error.reason}). The search goes on in memory and tries again.",
                    stacklevel=3,
                )
            self._unsaved = True

    def _write(self, state: bool = True) -> None:
        """Write snapshots and rows that are not written yet, and last the state."""
        passing = set() if state or self._accepted % self.snapshot_every == 0 else {self._accepted}
        with self._told(self.folder):
            if not self._mark:
                self.typicality.save(self.folder / "typicality")
                for index, cluster in enumerate(self.clusters):
                    cluster.save(self.folder / "clusters" / str(index))
            self.snapshots.write(but=passing)
            self._history.write(self.history)
            if state:
                self._tried = uuid.uuid4().hex
                write_state(self.folder, self._state(), self._facts())
                self._mark, self._saved_step = self._tried, self.steps
                self._drop_superseded(on_disk=True)

    @contextmanager
    def _told(self, folder: Path) -> Iterator[None]:
        """A block that writes to the ``folder`` that is held; what goes wrong is a ``NotSaved``."""
        try:
            require_held(folder)
            yield
        except NotSaved:
            raise
        except OSError as error:
            raise NotSaved(folder, self.steps, self._saved_step, error) from error

    def _state(self) -> dict[str, torch.Tensor]:
        """The tensors that are needed to go on, where they are."""
        tensors = {f"now/{name}": parameter.detach() for name, parameter in self.space.named_parameters().items()}
        for kind, optimizer in self.optimizers.items():
            for index, parameter in enumerate(self.space.parameters()):
                for name, tensor in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer/{kind}/{index}/{name}"] = tensor
        return tensors

    def _facts(self) -> dict:
        """What else is needed to go on, and to read."""
        return {
            "id": self._id,
            "mark": self._tried,
            "settings": self.settings,
            "origin": self.generator.origin,
            "snapshot_every": self.snapshot_every,
            "steps": self.steps,
            "result_step": self.result_step,
            "stopped": self.stopped,
            "accepted": self._accepted,
            "superseded": sorted(self._superseded),
            "held_seed": self._held_seed,
            "default_rule": self.default_rule,
            "aims": self.aims,
            "checks": self.checks,
        }

    def export_lora(self, path: str | Path, step: int | None = None) -> Path:
        """Write the adapters of a snapshot (the result by default) for diffusers: ``load_lora_adapter(path, prefix=None)``.

        Raises:
            ValueError: no such snapshot, or a space without adapters.
        """
        if not isinstance(self.space, LoRA):
            raise ValueError(f"space: {self.space.name!r} has no LoRA to export; search the space 'lora'")
        with self.at(step):
            return self.space.export(path)

    # --- opening ------------------------------------------------------------------------------------------------------

    def resume(self, folder: str | Path) -> "CreativeRun":
        """Go on from what is saved in ``folder``; to be called on a run that was made with the same settings.

        Raises:
            FileNotFoundError: nothing is saved there. ValueError: it was made with other settings, or a file is damaged.
        """
        folder = real_path(folder, "folder")
        tensors, facts = read_state(folder)
        self._require_settings(facts, folder)
        if told := describe_aims(facts):
            raise ValueError(f"folder: {folder} holds a run whose target is {told}; open it by CreativeRun.load")
        self._restore(tensors, facts, folder)
        return self

    def _require_settings(self, facts: dict, folder: Path) -> None:
        """Refuse a run of other settings; warn of those that matter as float noise only."""
        older = facts.get("format", 1) < FORMAT
        saved, own = {"clusters": [], **facts["settings"]}, self.settings
        hard, soft = (
            differences(*({key: value for key, value in one.items() if (key in SOFT) == flag} for one in (saved, own)), older)
            for flag in (False, True)
        )
        if hard:
            raise ValueError(
                f"folder: {folder} holds a run with other settings: {'; '.join(hard)}. Choose another folder, make the run "
                "with those settings, or replace it by force=True"
            )
        if soft:
            warnings.warn(f"{folder}: numbers may differ by float noise: {'; '.join(soft)}", stacklevel=4)

    def _restore(self, tensors: dict[str, torch.Tensor], facts: dict, folder: Path) -> None:
        """Put what was saved in place."""
        self.optimizers, now, old_snapshots = {}, {}, {}
        parameters = self.space.parameters()
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            if part == "now":
                now[name] = tensor
            elif part == "snapshot":  # format 1
                step, _, name = name.partition("/")
                old_snapshots.setdefault(int(step), {})[name] = tensor
            else:
                kind, index, name = name.split("/")
                parameter = parameters[int(index)]
                moment = tensor if name == "step" else tensor.to(parameter.device).reshape(parameter.shape)
                self.optimizer(kind).state[parameter][name] = moment
        self.space.load_state_dict(now)
        self.folder, self._history = folder, History(folder)
        if "history" in facts:  # format 1
            self.history, self.snapshots = facts["history"], Snapshots()
            for step, state in sorted(old_snapshots.items()):
                self.snapshots.keep(step, state)
        else:
            self.history = self._history.read(facts["steps"])
            self.snapshots = Snapshots.open(folder / "snapshots", facts["steps"])
        self.stopped, self._accepted, self._held_seed = facts["stopped"], facts["accepted"], facts["held_seed"]
        self.aims = [tuple(aim) for aim in facts.get("aims", self.aims)]
        self._id, self._saved_step, self._superseded = facts.get("id", ""), self.steps, set(facts.get("superseded", []))
        self._mark = self._tried = _mark(facts)
        self.checks = facts.get("checks")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        generator: Searchable | None = None,
        typicality: TypicalityModel | None = None,
        rule: Rule | None = None,
        checker: YesNoChecker | None = None,
        device: str | torch.device | None = None,
    ) -> "CreativeRun":
        """Open the run that is saved in ``folder``, finished or not.

        To look at it, nothing else is needed: ``sample``, ``default``, ``snapshots``, ``history``, ``typicality``,
        ``export_lora``. To go on with ``run`` it wants the checker, where it had one.

        Args:
            generator: loaded by the name or folder that it was made with where it is not given.
            typicality: only for a run that an earlier version saved without it.
            rule: only where it was one of your own. checker: only to go on. device: of the generator that is loaded.

        Raises:
            FileNotFoundError: nothing is saved there. ValueError: the generator has other weights, or something else is not
                what the run was made with; a file is damaged. OSError: the generator cannot be loaded.
        """
        folder = real_path(folder, "folder")
        tensors, facts = read_state(folder)
        saved = {"clusters": [], "space_options": {}, **facts["settings"]}
        if generator is None:
            generator = generator_of(facts, device)
        if other := differences(saved.get("weights", {}), generator.weights, older="weights" not in saved):
            raise ValueError(f"generator: the run in {folder} was made with other weights: {'; '.join(other)}; give it those")
        if typicality is None:
            try:
                typicality = load_typicality(folder / "typicality")
            except FileNotFoundError:
                why = "because an earlier version saved the run" if facts.get("format", 1) < FORMAT else "it was deleted"
                raise ValueError(f"typicality: {folder} holds none, {why}; fit it to the same baseline and give it") from None
        space = make_space(saved["space"], generator, saved["subject"], saved["space_seed"], **saved["space_options"])
        kind = dict(saved["rule"])
        kind = RULES.get(kind.pop("name"), lambda **fields: None)(**kind) if rule is None else rule
        run = cls(
            generator,
            saved["subject"],
            space,
            typicality,
            rule=kind or RULES["SumRule"](),  # stands in for a rule that is not at hand; it is never asked
            checker=checker,
            clusters=[
                NegativeCluster.load(folder / "clusters" / str(index), typicality) for index in range(len(saved["clusters"]))
            ],
            seed=saved["seed"],
            learning_rate=saved["learning_rate"],
            prior_steps=saved["prior"]["steps"],
            guidance=saved["prior"]["guidance"],
            check_every=saved["check_every"],
            check_images=saved["check_images"],
            snapshot_every=facts.get("snapshot_every", 10),
            target=saved["target"],
        )
        run.default_rule = facts.get("default_rule")  # an earlier version did not say
        run._absent = {"rule": saved["rule"]} if kind is None else {}
        run._absent |= {"checker": saved["checker"]} if saved["checker"] and checker is None else {}
        run._require_settings(facts, folder)
        run._restore(tensors, facts, folder)
        return run


def _mark(facts: dict) -> str | int:
    """Of the save that wrote ``facts``; an earlier version counted the saves."""
    return facts.get("mark", facts.get("saves", 0))
