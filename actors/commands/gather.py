"""Collecting and evaluating without learning: one store that grows, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from actors.commands.launch import Attempt, Launch, check_origin, say_where_key_goes, succeeded
from actors.config.schema import Config
from actors.gathering.acting import Acting, acting, is_run, short
from actors.gathering.exam import Results, as_record, results, table, tasks_as_csv
from actors.gathering.gathering import gathering
from actors.gathering.orders import Call, Exam, next_call, read_calls
from actors.gathering.orders import as_record as calls_as_record
from actors.gathering.store import open_store
from actors.gathering.tally import Tally
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from actors.runs.policies import run_of
from actors.runs.writing import replace_file
from experience.command.output import emit, say
from experience.errors import ConfigError, XpError
from experience.text.strict_json import dumps

Origins = dict[str, str]
Show = Callable[[Progress], None]


def collect(
    launch: Launch,
    config: Config,
    origins: Origins,
    policy: str,
    episodes: int,
    to: str,
    trusted: bool = False,
) -> None:
    """Adds `episodes` of a policy to the store `to`; an interrupted call of it is finished first.

    Raises XpError where not one of this call's episodes could be lived.
    """
    if not any(world.groups for world in config.worlds):
        raise ConfigError("no world has groups: nothing is to be lived", "set worlds.0.groups=1")
    who = prepared(policy, config, trusted)
    directory = open_store(to or f"collected-{config.name}", "collect", config, origins)
    tally = Tally()
    added = [0, 0]  # episodes of this call, and those of them that failed

    def live(show: Show) -> Progress:
        with gathering(
            who, config.policy.temperature, directory, tally, show, "collecting"
        ) as gathered:
            call = _call_of(directory, who, config, episodes, tally)
            before = len(tally.finished), tally.failed
            gathered.live(lambda: call.works(config, who.lane))
        if not gathered.progress.cut_short:
            _end_call(directory, call)
        added[:] = len(tally.finished) - before[0], tally.failed - before[1]
        if added[0] and added[0] == added[1]:
            raise _nothing(added[0], gathered.progress)
        return gathered.progress

    def end(progress: Progress, seconds: float) -> None:
        _say_cut(progress)
        if launch.as_json:
            done = succeeded(directory, progress, seconds) | {"dir": str(directory.path)}
            emit(done | {"new": added[0], "failed": added[1]})
            return
        failures = f" · {tally.failed} FAILED (failures.json)" if tally.failed else ""
        emit(
            f"{directory.name} holds {len(tally.finished)} episodes, {added[0]} of them new, by "
            f"{who.label}; {sum(progress.steps.values())} steps{failures} · "
            f"{progress.acknowledged} rows acknowledged, 0 lost · {directory.path}"
        )

    launch.attempt(Attempt(directory, live, end, "the same command"))


def evaluate(
    launch: Launch,
    config: Config,
    origins: Origins,
    policy: str,
    exam: Callable[[str], Exam],
    ks: Sequence[int],
    bar: float | None,
    to: str,
    trusted: bool = False,
) -> None:
    """Has a policy try tasks, and writes the scores into the store `to`.

    exam: makes the exam for the policy's name. Attempts that the store holds are not made again.
    """
    who = prepared(policy, config, trusted)
    name = run_of(policy)[0].name if is_run(policy) else config.name
    directory = open_store(to or f"evaluated-{name}", "eval", config, origins)
    asked = exam(who.name)
    tally = Tally(keeps=True)

    def live(show: Show) -> Progress:
        with gathering(who, asked.temperature, directory, tally, show, "evaluating") as gathered:
            failed = frozenset(tally.broken)  # before this call
            gathered.live(lambda: asked.works(config, who.lane, failed))
        found = results(config, who, asked, tally, ks, bar)
        _keep(directory, config, found)
        tried = len(found.attempts) * asked.attempts - found.missing
        if tried and not any(of.episodes or of.unknown for of in found.scores.values()):
            raise _nothing(tried, gathered.progress)
        return gathered.progress

    def end(progress: Progress, seconds: float) -> None:
        found = results(config, who, asked, tally, ks, bar)
        for warning in _warnings(found, who, bool(ks)):
            say(f"warning: {warning}")
        _say_cut(progress)
        if launch.as_json:
            done = succeeded(directory, progress, seconds) | {"dir": str(directory.path)}
            emit(done | {"evaluation": as_record(found)})
        else:
            _print(found, directory)

    launch.attempt(Attempt(directory, live, end, "the same command"))


def prepared(policy: str, config: Config, trusted: bool) -> Acting:
    """The policy, once this machine is known to have what it and the worlds need."""
    from actors.commands.doctor import require

    if is_run(policy):
        run, _ = run_of(policy)
        # of its configuration only the policy is used: no world and no cluster of it
        check_origin(run.config().model_copy(update={"worlds": [], "workers": 0}), run, trusted)
    who = acting(policy, config)
    if not who.is_script:
        say_where_key_goes(who.config)
    require(config, trusted)
    lookahead = config.planning.lookahead
    if lookahead.candidates and lookahead.search != "campaign" and not who.is_script:
        say("planning.lookahead is left out: its models are those of a learner, which is not here")
    return who


def _call_of(
    directory: RunDirectory, who: Acting, config: Config, episodes: int, tally: Tally
) -> Call:
    """The interrupted call of this policy, or a new one, which is written down first."""
    calls = read_calls(directory.record)
    for call in [call for call in calls if call.policy == who.name and not call.is_done]:
        of = call.until - call.first
        done = sum(work.work_id in tally.finished for work in call.works(config, who.lane))
        if done < of:
            say(f"goes on with an interrupted call: {done} of its {of} episodes are there")
            return call
        _end_call(directory, call)
    calls = read_calls(directory.record)
    call = next_call(calls, who.name, episodes, config.collecting.group_size)
    directory.write_record(collected=calls_as_record([*calls, call]))
    return call


def _end_call(directory: RunDirectory, ended: Call) -> None:
    calls = [
        replace(call, is_done=True) if call == ended else call
        for call in read_calls(directory.record)
    ]
    directory.write_record(collected=calls_as_record(calls))


def _keep(directory: RunDirectory, config: Config, found: Results) -> None:
    """Writes evaluations/NAME.json and, with a row for each task, evaluations/NAME.csv."""
    folder = directory.path / "evaluations"
    folder.mkdir(exist_ok=True)
    exam = found.exam
    name = short(f"{exam.policy}-{exam.split}-t{exam.temperature:g}")
    replace_file(folder / f"{name}.json", dumps(as_record(found), indent=1).encode())
    replace_file(folder / f"{name}.csv", tasks_as_csv(config, found))


def _print(found: Results, directory: RunDirectory) -> None:
    exam = found.exam
    success = "" if found.bar is None else f", a success is a return of {found.bar:g} or more"
    emit(
        f"{exam.policy} (version {found.version}) on {exam.split} tasks, {exam.attempts} attempts "
        f"each at temperature {exam.temperature:g}{success}; ± is the 95 % interval over tasks"
    )
    for line in table(found):
        emit(line)
    emit(f"kept in {directory.path / 'evaluations'}")


def _warnings(found: Results, who: Acting, asked_for_k: bool) -> list[str]:
    told = []
    exam = found.exam
    if exam.attempts > 1 and exam.temperature == 0 and not who.is_script:
        told.append(
            "at evaluation.temperature=0 the attempts at a task differ only where the world or "
            "the engine does; evaluation.temperature=1 samples"
        )
    if asked_for_k and found.bar is None:
        told.append("no success is defined, so there is no pass@k: --success-at RETURN defines it")
    for world, of in found.scores.items():
        if of.failed:
            told.append(f"{world}: {of.failed} episodes failed and are in no mean (failures.json)")
        if of.unknown:
            told.append(f"{world}: the return of {of.unknown} episodes is unknown")
        told += [
            f"{world}: pass@{k} leaves out {passed.short} tasks with fewer than {k} attempts"
            for k, passed in of.passed.items()
            if passed.short
        ]
    return told


def _say_cut(progress: Progress) -> None:
    for phase, how in progress.cut_short.items():
        say(f"warning: {phase} was cut short: {how}; the same command goes on")


def _nothing(episodes: int, progress: Progress) -> XpError:
    from actors.reading.live import causes

    return XpError(
        f"not one of {episodes} episodes could be lived: {causes(progress) or 'no reason is known'}",
        "./xp env check says what is wrong with a world; failures.json in the run directory has "
        "the first traceback",
    )
