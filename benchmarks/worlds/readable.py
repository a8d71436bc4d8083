"""`python -m benchmarks.worlds.readable --model PATH`: what a chat model makes of each wording.

    --model smollm2                                     the model in this process (hugging_face)
    --model NAME --server http://127.0.0.1:8000/v1      behind an OpenAI-compatible server

For each bundled world and wording, the model lives the same held-out episodes. A row says what
share of its answers the world took for actions (invalid ones carry the signal `invalid_action`),
and the mean return with its 95 % interval by Student's t, beside that of random actions on the same
tasks. An episode is cut after --turns turns, in all three alike. No grammar helps the model, unless
--listed allows only listed actions in the worlds that list theirs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.config.schema import load
from actors.engines.engine import Engine, Situation
from actors.engines.registry import make_engine
from envs import STRANGERS, WORLDS
from envs.contract import INVALID
from envs.episode import Episode, begin, do_random, live, take
from envs.make import make
from envs.wording import WORDINGS
from experience.errors import MissingPartError
from experience.evaluation.statistics import Mean, mean_with_interval
from experience.world import WorldCard, actions_of, instructions_of


@dataclass(frozen=True)
class Read:
    """What a model made of one world in one wording."""

    world: str
    wording: str
    answers: int
    valid: float
    """The share of the answers that the world took for actions."""
    returns: Mean
    random: Mean

    def row(self) -> str:
        return (
            f"| {self.world} | {self.wording} | {self.answers} | {self.valid:.2f} "
            f"| {self.returns} | {self.random} |"
        )


HEAD = "| world | wording | answers | valid | held-out return | random |\n|---|---|---|---|---|---|"


def episode_of(
    world: Any, engine: Engine, seed: int, turns: int, temperature: float, show: bool = False
) -> Episode:
    """One held-out episode in which the model answers each turn from that turn's prompt alone."""
    episode = begin(world, seed, "heldout")
    while not episode.ended and len(episode.actions) < turns:
        situation = Situation(episode.seen[-1], instructions_of(world), actions_of(world))
        answer = engine.act([situation], temperature)[0].text
        if show:
            print(f"{'=' * 80}\n{situation.instructions}\n\n{situation.observation}\n>>> {answer}")
        take(world, episode, answer)
    return episode


def measure(
    name: str,
    wording: str,
    engine: Engine,
    seeds: Sequence[int],
    turns: int = 40,
    temperature: float = 1.0,
    show: bool = False,
) -> Read:
    """What the model makes of a bundled world. Raises MissingPartError if it cannot be made."""
    world = make(f"envs:{name}", {"wording": wording}).unwrapped
    try:
        if "heldout" not in WorldCard.of(world).splits:
            raise ValueError(f"{name} has no held-out tasks")
        lived = [
            episode_of(world, engine, seed, turns, temperature, show and seed == seeds[0])
            for seed in seeds
        ]
        random = [live(world, seed, do_random, "heldout", turns).total for seed in seeds]
    finally:
        world.close()
    signals = [of_turn for episode in lived for of_turn in episode.signals]
    valid = sum(INVALID not in of_turn for of_turn in signals) / len(signals)
    returns = mean_with_interval([episode.total for episode in lived])
    return Read(name, wording, len(signals), valid, returns, mean_with_interval(random))


def _engine(given: argparse.Namespace) -> Engine:
    policy = [
        f"policy.model={given.model}",
        f"policy.context={given.context}",
        f"policy.max_tokens={given.max_tokens}",
        f"policy.listed={str(given.listed).lower()}",
        "policy.learns=false",
    ]
    if given.server:
        policy += ["policy.engine=openai", f"policy.base_url={given.server}"]
    else:
        policy += ["policy.engine=hugging_face"]
    config, _ = load([], policy)
    return make_engine(config.policy, given.seed)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder, a .gguf file, smollm2, or a name")
    parser.add_argument("--server", default="", help="of an OpenAI-compatible API, with /v1")
    parser.add_argument("--worlds", nargs="*", default=[], help="names such as Reactor-v0; all")
    parser.add_argument("--wordings", nargs="*", default=list(WORDINGS), choices=WORDINGS)
    parser.add_argument("--episodes", type=int, default=10, help="a world and wording")
    parser.add_argument("--turns", type=int, default=40, help="the most of one episode")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--context", type=int, default=2048, help="tokens of prompt and answer")
    parser.add_argument("--max-tokens", type=int, default=48, help="of one answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listed", action="store_true", help="only listed actions, if any")
    parser.add_argument("--show", action="store_true", help="prompts and answers of one episode")
    given = parser.parse_args(words)
    engine = _engine(given)
    seeds = range(given.seed, given.seed + given.episodes)
    print(HEAD, flush=True)
    for name in given.worlds or [name for name in WORLDS if name not in STRANGERS]:
        for wording in given.wordings:
            try:
                read = measure(
                    name, wording, engine, seeds, given.turns, given.temperature, given.show
                )
            except MissingPartError as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
                break
            print(read.row(), flush=True)


if __name__ == "__main__":
    main()
