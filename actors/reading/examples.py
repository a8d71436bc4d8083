"""Episodes of a report: whole, as the store has them, with pictures of what was seen."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from actors.reading.survey import Lived, Survey, whole_episodes
from actors.runs.directory import RunDirectory
from experience.episode import Episode
from experience.errors import ShardError
from experience.shards.storage.blobs import BlobReader
from experience.step import Blob, Step
from experience.text.characters import readable

_MOST_CHARACTERS = 20_000
"""Of one episode's text; what is longer loses turns in its middle, and says how many."""
_MOST_WORLDS = 12
_PICTURES, _WIDTH, _PICTURE_BYTES = 4, 480, 120_000
"""Of one episode: how many at most, how wide in pixels, and how large each may be."""
_MOST_PIXELS = 40_000_000


def examples(directory: RunDirectory, found: Survey) -> str:
    """HTML of the best and the worst held-out episode of each world's last evaluated version."""
    chosen = [e for world in found.worlds[:_MOST_WORLDS] for e in _best_and_worst(found, world)]
    blobs = BlobReader(directory.shards)
    return "".join(
        _example(lived, episode, blobs)
        for lived, episode in zip(chosen, whole_episodes(directory.shards, chosen), strict=True)
    )


def _best_and_worst(found: Survey, world: str) -> list[Lived]:
    """Where nothing was evaluated, of all episodes of the world, its newest kind first."""
    known = [e for e in found.episodes if e.env_id == world and e.whole and e.total is not None]
    acted = [e for e in known if e.behaviour != "random" and e.split == "heldout"] or known
    last = max((e.version or 0 for e in acted), default=0)
    ranked = sorted((e for e in acted if (e.version or 0) == last), key=lambda e: e.total or 0.0)
    # Of a single episode the best is the worst, and is shown once.
    return list(dict.fromkeys([ranked[-1], ranked[0]])) if ranked else []


def _example(lived: Lived, episode: Episode, blobs: BlobReader) -> str:
    facts = {
        "policy version": lived.version,
        "split": lived.split,
        "source": lived.source,
        "seed": lived.seed,
        "task": lived.task,
        "turns": lived.turns,
        "ending": lived.ending,
        "return": f"{lived.total:g}",
    }
    head = ", ".join(f"{name} {value}" for name, value in facts.items())
    return (
        f"<h3>{html.escape(lived.env_id)}</h3><p>{html.escape(head)}</p>"
        f"{_pictures(episode.rows, blobs)}"
        f"<pre>{html.escape(_shortened([readable(_turn(s)) for s in episode.rows]))}</pre>"
    )


def _turn(step: Step) -> str:
    if step.decision is None:
        return f"{step.obs_text}\n■ the end: {step.ending}"
    signals = ", ".join(
        f"{s.name} = {'unknown' if s.value is None else f'{s.value:g}'}" for s in step.signals
    )
    reward = "unknown" if step.reward is None else f"{step.reward:g}"
    return f"{step.obs_text}\n→ {step.decision.text}\n   reward {reward}" + (
        f"; {signals}" if signals else ""
    )


def _shortened(turns: Sequence[str]) -> str:
    """All turns, or the first and the last ones that have room."""
    each = _MOST_CHARACTERS // 4
    kept = [
        t
        if len(t) <= each
        else f"{t[: each // 2]}\n… {len(t) - each} characters …\n{t[-(each // 2) :]}"
        for t in turns
    ]
    head: list[str] = []
    tail: list[str] = []
    left = list(kept)
    room = _MOST_CHARACTERS
    while left and room > 0:
        # From both ends in turn, the end first: how an episode ended matters most.
        side = tail if len(tail) <= len(head) else head
        side.append(left.pop(-1 if side is tail else 0))
        room -= len(side[-1])
    middle = (
        [f"… {len(left)} turns in between, not shown here: ./xp env replay shows them …"]
        if left
        else []
    )
    return "\n\n".join([*head, *middle, *reversed(tail)])


def _pictures(rows: Sequence[Step], blobs: BlobReader) -> str:
    """The first, the last and some in between, made small; one that cannot be shown says why."""
    seen = [
        (step.step_in_episode, blob)
        for step in rows
        for blob in step.obs_blobs
        if blob.media.startswith("image/")
    ]
    last = len(seen) - 1
    picked = sorted({round(i * last / (_PICTURES - 1)) for i in range(_PICTURES)}) if seen else []
    return "".join(_picture(*seen[i], blobs) for i in picked)


def _picture(turn: int, blob: Blob, blobs: BlobReader) -> str:
    caption = f"{blob.role or 'picture'} at turn {turn}, {blob.w} × {blob.h} pixels"
    try:
        small = _small(blobs.read(blob.hash))
    except (ShardError, OSError, ValueError, SyntaxError) as error:  # the last two are Pillow's
        return f"<p>{html.escape(caption)}: cannot be shown, {html.escape(str(error)[:200])}</p>"
    return (
        f'<figure><img alt="{html.escape(caption)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(small).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _small(data: bytes) -> bytes:
    """The picture encoded again as a small JPEG. Raises ValueError if it has too many pixels."""
    from PIL import Image

    # Three formats only: each further decoder of Pillow is one more that a world could attack.
    picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
    if picture.width * picture.height > _MOST_PIXELS:
        raise ValueError(f"{picture.width} × {picture.height} pixels are too many")
    drawn = picture.convert("RGB")
    drawn.thumbnail((_WIDTH, 2 * _WIDTH))
    # A page may hold a hundred pictures, and is opened from a mail as often as from a disk.
    for quality in (80, 60, 40, 20):
        out = io.BytesIO()
        drawn.save(out, "JPEG", quality=quality)
        if out.tell() <= _PICTURE_BYTES:
            return out.getvalue()
    raise ValueError(f"more than {_PICTURE_BYTES} bytes, however small")
