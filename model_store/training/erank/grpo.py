"""Stage 2: GRPO, a query a step, with rewards from the ranks of all answers to it.

Depends on token ids, rewards and TRL's trainer, not on rows. Invariant: the answers that are
rewarded together are those to the N prompts of one query, G to each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import LoraConfig as PeftSettings

from model_store.families.readout import GeneratedScore
from model_store.output_files import write_json
from model_store.training.config import TrainingError
from model_store.training.erank.config import GrpoRun
from model_store.training.erank.pairs import (
    MAX_PAIRS,
    PairRenderer,
    QueryPair,
    order_of,
    query_groups,
)
from model_store.training.erank.rewards import Rollout, rewards, score_of, without_variance
from model_store.training.erank.trainers import grpo_trainer, open_tokenizer
from model_store.training.erank.writing import AnswerWriter
from model_store.training.journal import read_metrics
from model_store.training.progress import ProgressLog

BEFORE = "stage1.json"
"""The numbers that the model of stage 1 writes for the pairs, in the run's folder; of the first
pairs alone while they are computed."""
MAX_BEFORE_BYTES = 2**30
_SCORED_AT_ONCE = 512


@dataclass
class QueryReward:
    """Rewards one query's answers a call, and notices rewards without variance.

    `varied` is true once a group's rewards have varied; `constant` counts steps before that.
    """

    run: GrpoRun
    readout: GeneratedScore
    pairs: Sequence[QueryPair]
    before: Mapping[str, float | None]
    progress: ProgressLog
    varied: bool = False
    constant: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    """Shares of the last call: answers without a number, prompts whose rewards are all equal."""

    def __call__(self, texts: Sequence[str], numbers: Sequence[int]) -> list[float]:
        """The reward of each answer; raises `TrainingError` where nothing can be learnt."""
        rollouts: list[Rollout] = []
        for text, number in zip(texts, numbers, strict=True):
            pair = self.pairs[number]
            score = score_of(text, self.readout)
            rollouts.append(Rollout(pair.positive, score, self.before[pair.name]))

        found = rewards(rollouts, self.run.reward)
        groups = len(found) // self.run.rollouts.answers
        equal = without_variance(found, self.run.rollouts.answers)
        unscored = sum(rollout.score is None for rollout in rollouts)
        self.seen = {"unscored": unscored / len(found), "constant": equal / groups}
        self._notice(equal == groups, found[0], unscored == len(found))
        return found

    def _notice(self, constant: bool, reward: float, unscored: bool) -> None:
        """Say that a step teaches nothing, and end a run whose first steps all teach nothing."""
        if not constant:
            self.varied = True
            return

        self.progress.line(
            "The answers to each prompt of this step all have the same reward, so that nothing is"
            " learnt from it."
        )
        self.constant += 1
        if self.varied or self.constant < self.run.constant_steps:
            return
        reason = "no answer is in the required form: begin with stage 1 (method sft-generated)"
        if not unscored:
            reason = f"all {reward:.3g}: raise rollouts.temperature, or begin with other weights"
        raise TrainingError(
            f"The rewards of the first {self.constant} steps have no variance, {reason}."
        )


@dataclass(slots=True)
class GrpoStage:
    """The second stage with its pairs, all groups in a row."""

    run: GrpoRun
    renderer: PairRenderer
    groups: list[list[QueryPair]]
    shown: str = "reward"
    _reward: QueryReward | None = None

    @property
    def pairs(self) -> int:
        return sum(map(len, self.groups))

    @property
    def steps(self) -> int:
        return self.run.steps or max(1, round(self.run.epochs * len(self.groups)))

    @property
    def facts(self) -> dict[str, Any]:
        return {"queries": len(self.groups)}

    def trainer(self, network: Any, maps: PeftSettings, states: Path, progress: ProgressLog) -> Any:
        pairs = [pair for group in self.groups for pair in group]
        before = self._before(network, pairs, progress)
        rows = read_metrics(self.run.output)
        varied = any(row.get("constant", 1.0) < 1.0 for row in rows)
        self._reward = QueryReward(
            self.run, self.renderer.readout, pairs, before, progress, varied, constant=len(rows)
        )
        order = order_of(self.groups, self.steps, self.run.seed)
        tokenizer = open_tokenizer(self.renderer.folder, self.renderer.end)
        return grpo_trainer(
            self.run,
            network,
            tokenizer,
            pairs=pairs,
            order=order,
            reward=self._reward,
            maps=maps,
            states=states,
        )

    def row(self, logs: Mapping[str, Any]) -> dict[str, float] | None:
        if "reward" not in logs or self._reward is None:
            return None
        return {
            "loss": float(logs.get("loss", 0.0)),
            "reward": float(logs["reward"]),
            "reward_std": float(logs.get("reward_std", 0.0)),
            **self._reward.seen,
            "kl": float(logs.get("kl", 0.0)),
            "answer_tokens": float(logs.get("completions/mean_length", 0.0)),
            "gradient": float(logs.get("grad_norm", 0.0)),
            "rate": float(logs.get("learning_rate", 0.0)),
            "tokens_seen": float(logs.get("num_tokens", 0.0)),
        }

    def _before(
        self, network: Any, pairs: Sequence[QueryPair], progress: ProgressLog
    ) -> dict[str, float | None]:
        """The number that the base, which is stage 1's model, writes for each pair.

        It is the number alone, as a sampled answer's score is: not times its probability. A run
        that was interrupted goes on behind the pairs that have one.
        """
        path = self.run.output / BEFORE
        asked = {
            "base": self.renderer.digest,
            "precision": self.run.precision,
            "max_tokens": self.run.rollouts.max_tokens,
            "pairs": _digest(pairs),
        }
        found = _read_before(path, asked)
        left = pairs[len(found) :]
        if not left:
            return found

        progress.line(f"Stage 1's scores of {len(left)} pairs are computed.")
        renderer, written = self.renderer, len(found)
        writer = AnswerWriter(
            network.eval(), renderer.tokenizer, renderer.readout, self.run.rollouts.max_tokens
        )
        for start in range(0, len(left), _SCORED_AT_ONCE):
            chunk = left[start : start + _SCORED_AT_ONCE]
            answers = writer.write([pair.prompt for pair in chunk])
            for pair, answer in zip(chunk, answers, strict=True):
                score = score_of(answer.text, renderer.readout)
                found[pair.name] = None if score is None else float(score)
            # the larger the file, the rarer: all writes together are a few times its size
            if len(found) == len(pairs) or len(found) >= 1.25 * written:
                write_json(path, {**asked, "scores": found})
                written = len(found)
        return found


def _digest(pairs: Sequence[QueryPair]) -> str:
    """A digest of the pairs' names and prompts."""
    digest = hashlib.blake2b(digest_size=16)
    for pair in pairs:
        digest.update(json.dumps([pair.name, pair.prompt]).encode())
    return digest.hexdigest()


def _read_before(path: Path, asked: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores of the first pairs, which an interrupted run left; none where they were asked for
    in another way."""
    try:
        if path.stat().st_size > MAX_BEFORE_BYTES:
            raise ValueError
        found = json.loads(path.read_bytes())
        scores: dict[str, float | None] = dict(found.pop("scores"))
        return scores if found == asked else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise TrainingError(f"{path}: it cannot be read; remove it to score again.") from None


def open_stage(run: GrpoRun, renderer: PairRenderer) -> GrpoStage:
    """The stage with its pairs as token ids; raises `DataError` and `TrainingError`."""
    groups = query_groups(renderer, run.data, run.seed)
    stage = GrpoStage(run, renderer, groups)
    if stage.steps * run.data.documents > MAX_PAIRS:
        raise TrainingError(
            f"{stage.steps:,} steps of {run.data.documents} documents each are asked for, and a run"
            f" has at most {MAX_PAIRS:,} documents in all its steps."
        )
    return stage
