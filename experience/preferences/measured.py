"""Preference models at work in a run: they measure each episode when it is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from experience.episode import Episode, EpisodeReader
from experience.preferences.model import PreferenceModel, read_model
from experience.preferences.naming import KIND, STORED, file_of, is_given
from experience.signal import Signal, SignalKind
from experience.step import Step

Key = tuple[bytes, int]
Knows = Callable[[Key, str], bool]


class PreferenceSignals:
    """Scores finished real episodes of the worlds whose reward weighs a preference model.

    weights: by environment id, as the configuration gives them. Raises WeightsError for a file that
    is no preference model.
    """

    def __init__(self, weights: Mapping[str, Mapping[str, float]]) -> None:
        self._models: dict[str, list[tuple[str, PreferenceModel]]] = {}
        self._reader = EpisodeReader()
        read: dict[str, tuple[PreferenceModel, str]] = {}
        for env_id, row in weights.items():
            for name in filter(is_given, row):
                if name not in read:
                    read[name] = read_model(file_of(name))
                model, version = read[name]
                self._models.setdefault(env_id, []).append((STORED + version, model))

    @property
    def catalogue(self) -> dict[str, SignalKind]:
        """The signals that the models measure."""
        return {name: KIND for models in self._models.values() for name, _ in models}

    def __call__(self, rows: Sequence[Step], knows: Knows) -> list[tuple[Key, Signal]]:
        """The scores of the episodes that end with these rows, of the last acted row of each.

        knows: whether a row's signal was measured before; it is not measured again.
        """
        if not self._models:
            return []
        over = [e for row in rows for e in self._reader.take(row) if e.closing and not e.failed]
        found = []
        for env_id, models in self._models.items():
            own = [e for e in over if e.first.env_id == env_id and e.first.source == "real"]
            for name, model in models:
                new = [e for e in own if not knows(_key(e), name)]
                scores = model.score(new).tolist()
                found += [
                    (_key(e), Signal(name, score, KIND.unit, KIND.source))
                    for e, score in zip(new, scores, strict=True)
                ]
        return found


def _key(episode: Episode) -> Key:
    last = episode.steps[-1]
    return last.stream_id, last.t
