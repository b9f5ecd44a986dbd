"""What the tests within and across sources say, in sentences and tables.

As in `anymodal.report.wording`, each sentence is chosen by the numbers that it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anymodal.classification import SINGLE
from anymodal.report.comparison import Beside
from anymodal.report.names import REGIME_NAMES, THINGS
from anymodal.report.records import (
    Across,
    AcrossDifference,
    AcrossScore,
    AcrossTarget,
    SourceRow,
)
from anymodal.report.space_readings import LIKELY
from anymodal.report.wording import apart, listed, percent, plural

PROTOCOLS = ("within", "matched", "across")
_FEW = 10
"""Fewest rows of a source whose share of right answers is named in a sentence."""
_MOST = 20
"""Sources that the table lists at most."""


def across_headline(across: Across) -> str:
    """What the header says beside the answers; "" where nothing could be tested across sources."""
    parts = []
    for target, found in across.targets.items():
        inside = found.score("within", "MMT", "zero-shot")
        outside = found.score("across", "MMT", "zero-shot")
        if inside is None or outside is None or found.chance is None:
            continue
        numbers = apart(inside.mean, outside.mean, found.chance)
        parts.append(
            f"{numbers[1]} on {THINGS[target]} (chance {numbers[2]}), against {numbers[0]} where "
            "their sources are known from training"
        )
    if not parts:
        return ""
    return f"Tested on sources that it never met, zero-shot reaches macro F1 {listed(parts)}."


def across_reading(found: AcrossTarget, target: str) -> list[str]:
    """What the figure of one target modality says, or why there is none."""
    things = THINGS[target]
    if not found.measured:
        told = found.missing.get("across", "it was not measured")
        return [f"On {things} there is no test across sources: {told}."]
    sentences = [
        f"{found.test_rows:,} {things} of {plural(found.sources, 'source')} and "
        f"{plural(len(found.classes), 'class', 'classes')}."
    ]
    for system, regime in (("MMT", "zero-shot"), (SINGLE[target], "all")):  # type: ignore[index]
        sentences += _fall(found, system, regime)
    sentences += _parts(found)
    sentences += _sources(found, things)
    for left in found.left_out:
        sentences.append(
            f"{plural(left.rows, 'row')} of {left.instrument} {'is' if left.rows == 1 else 'are'} "
            f"left out of all three tests: {left.reason}."
        )
    return sentences


def _fall(found: AcrossTarget, system: str, regime: str) -> list[str]:
    inside, outside = (found.score(p, system, regime) for p in ("within", "across"))
    if inside is None or outside is None:
        return []
    name = f"{system} {REGIME_NAMES[regime]}" if regime == "zero-shot" else system
    lost = _difference(found, system, regime, "within", "across")
    before, after = apart(inside.mean, outside.mean)
    if lost is not None and lost.p_holm > LIKELY:
        verb = f"cannot be told apart within sources ({before}) and across them ({after})"
    elif inside.mean > outside.mean:
        verb = f"falls from {before} within sources to {after} across them"
    else:
        verb = f"does not fall: {before} within sources, {after} across them"
    return [f"{name} {verb}{_above(outside, found.chance)}."]


def _above(score: AcrossScore, chance: float | None) -> str:
    if chance is None:
        return ""
    if score.high is not None and score.high < chance:
        return f", below chance ({chance:.3f})"
    if score.mean <= chance or (score.low is not None and score.low <= chance):
        return f", where it cannot be told from chance ({chance:.3f})"
    return f" (chance {chance:.3f})"


def _parts(found: AcrossTarget) -> list[str]:
    """What MMT zero-shot loses to fewer rows, and to other sources."""
    whole, fewer, other = (
        _difference(found, "MMT", "zero-shot", *pair)
        for pair in (("within", "across"), ("within", "matched"), ("matched", "across"))
    )
    if whole is None or fewer is None or other is None or whole.difference <= 0:
        return []
    if whole.p_holm > LIKELY:
        return []
    if min(fewer.difference, other.difference) < 0:
        reached = found.score("matched", "MMT", "zero-shot")
        told = "" if reached is None else f" it reaches {reached.mean:.3f}"
        return [f"Within sources, with as few rows to train on,{told}."] if told else []
    numbers = [f"{one.difference:.3f}" for one in (whole, fewer, other)]
    return [
        f"Of the {numbers[0]} that MMT zero-shot loses, {numbers[1]} go to having fewer rows to "
        f"train on and {numbers[2]} to their coming from other sources."
    ]


def _sources(found: AcrossTarget, things: str) -> list[str]:
    shares = {
        one.source: share
        for one in found.by_source
        if one.rows >= _FEW and (share := _accuracy(one, "across", "MMT", "zero-shot")) is not None
    }
    if len(shares) < 2:
        return []
    worst, best = min(shares, key=lambda s: shares[s]), max(shares, key=lambda s: shares[s])
    return [
        f"Of the sources with {_FEW} {things} or more, MMT zero-shot names most rightly in {best} "
        f"({percent(shares[best])}) and fewest in {worst} ({percent(shares[worst])})."
    ]


def loss_rows(found: AcrossTarget) -> list[dict[str, tuple[str, str]]]:
    """One line a system: its scores, what it loses across sources, and to what; each cell a number
    and its interval."""
    keys = dict.fromkeys((one.system, one.regime) for one in found.scores)
    rows = []
    for system, regime in sorted(keys, key=lambda k: (k[0] != "MMT", k[0] == "MMP", k[1] == "all")):
        cells = {"system": (f"{system}, {REGIME_NAMES.get(regime, regime)}", "")}
        for protocol in PROTOCOLS:
            cells[protocol] = _score(found.score(protocol, system, regime))
        for name, pair in (
            ("lost", ("within", "across")),
            ("fewer", ("within", "matched")),
            ("other", ("matched", "across")),
        ):
            cells[name] = _lost(_difference(found, system, regime, *pair))
        rows.append(cells)
    return rows


def source_rows(found: AcrossTarget, target: str) -> list[dict[str, str]]:
    """One line a source, the largest first: rows, classes and shares of right answers."""
    rows = []
    for one in found.by_source[:_MOST]:
        cells = {"source": one.source, "rows": f"{one.rows:,}", "classes": f"{one.classes}"}
        for place, (system, regime) in enumerate(shown_systems(target)):
            for protocol in ("within", "across"):
                share = _accuracy(one, protocol, system, regime)
                cells[f"{protocol}-{place}"] = "–" if share is None else percent(share)
        rows.append(cells)
    return rows


def shown_systems(target: str) -> list[tuple[str, str]]:
    """Systems that the table of sources has columns for."""
    return [("MMT", "zero-shot"), ("MMT", "all"), (SINGLE[target], "all")]  # type: ignore[index]


def sources_beside(across: Across) -> Beside:
    """The line of "What differs" about the sources of test rows."""
    parts = []
    for target, found in across.targets.items():
        if found.sources:
            parts.append(f"{plural(found.sources, 'source')} of {THINGS[target]}")
    here = f"{listed(parts)}, in training as well" if parts else "not measured"
    if any(found.measured for found in across.targets.values()):
        here += "; also tested across sources"
    return Beside("Sources of the test rows", "YouTube; every clip is of another video", here)


def across_limit(targets: Mapping[str, AcrossTarget]) -> str:
    """What the scores of the page leave open about other sources."""
    known = [THINGS[target] for target, found in targets.items() if found.measured]
    unknown = [THINGS[target] for target, found in targets.items() if not found.measured]
    told = (
        "Training and test rows never share a recording, but they may share the collection it "
        "comes from, which flatters"
    )
    if known:
        told += f"; how much it does on {listed(known)} is told under “Across sources”"
    told += "."
    if unknown:
        told += f" How {listed(unknown)} from elsewhere would do is not known."
    return told


def _difference(
    found: AcrossTarget, system: str, regime: str, first: str, second: str
) -> AcrossDifference | None:
    wanted = (system, regime, first, second)
    return next(
        (d for d in found.differences if (d.system, d.regime, d.first, d.second) == wanted), None
    )


def _accuracy(one: SourceRow, protocol: str, system: str, regime: str) -> float | None:
    wanted = (protocol, system, regime)
    return next((a.value for a in one.accuracy if (a.protocol, a.system, a.regime) == wanted), None)


def _score(one: AcrossScore | None) -> tuple[str, str]:
    if one is None:
        return "–", ""
    ends = "" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}"
    return f"{one.mean:.3f}", ends


def _lost(one: AcrossDifference | None) -> tuple[str, str]:
    if one is None:
        return "–", ""
    ends = "" if one.low is None or one.high is None else f"{one.low:+.2f} to {one.high:+.2f}"
    return f"{one.difference:+.3f}", ends


def listed_sources(rows: Sequence[SourceRow]) -> str:
    """How many sources the table leaves out; "" where it has all."""
    left = len(rows) - _MOST
    return f"{plural(left, 'smaller source')} not shown." if left > 0 else ""
