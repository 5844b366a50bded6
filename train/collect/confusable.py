"""Words that are not keywords: which of them sound alike."""

from collections.abc import Sequence
from itertools import chain

from ...runtime.errors import EarmarkError
from .common_words import COMMON_WORDS
from .espeak import Synthesizer, synthesizer
from .named_rng import named_rng

AUTO_WORDS = 60
"""Other words that are chosen when none are given: half of them near a keyword."""


def confusable_words(
    keywords: Sequence[str], count: int = AUTO_WORDS, seed: int = 0, language: str = "en"
) -> tuple[str, ...]:
    """Choose other words from an embedded list: half near the keywords in sound, half at random.

    Nearness is the edit distance between the phonemes of two words over the longer one's length.
    The parts of keywords of several words come first. A word that sounds like a keyword in any
    accent is never chosen.

    Returns:
        ``count`` words, fewer where the list has no more.

    Raises:
        EarmarkError: the language is unknown or not English.
    """
    engine = synthesizer()
    voices = engine.voices(language)
    if language.lower().partition("-")[0] != "en":
        raise EarmarkError(
            f"language {language!r}: the list of other words is English: name some with --other"
        )
    parts = [p for k in keywords for p in k.lower().split() if any(c.isalnum() for c in p)]
    words = list(dict.fromkeys([*parts, *COMMON_WORDS]))
    alike = homophones(words, keywords, engine, voices)
    candidates = [word for word in words if word not in alike]
    sounds = dict(zip(candidates, engine.phonemes(candidates, voices[0]), strict=True))
    ranked = []
    for target in engine.phonemes(keywords, voices[0]):
        distance = {word: _distance(target, sounds[word]) for word in candidates}
        ranked.append(sorted(candidates, key=lambda word: (distance[word], word)))
    fair = chain.from_iterable(zip(*ranked, strict=True))
    near = list(dict.fromkeys([p for p in parts if p in sounds] + list(fair)))[: -(-count // 2)]
    rest = [word for word in candidates if word not in near]
    chosen = named_rng(seed, "other words").permutation(len(rest))[: count - len(near)]
    return tuple(near + [rest[i] for i in sorted(chosen)])


def homophones(
    words: Sequence[str], keywords: Sequence[str], engine: Synthesizer, voices: Sequence[str]
) -> set[str]:
    """Those of ``words`` that sound like a keyword in one of the voices."""
    alike = set()
    for voice in voices:
        taken = set(engine.phonemes(keywords, voice))
        alike |= {
            word
            for word, sounds in zip(words, engine.phonemes(words, voice), strict=True)
            if sounds in taken
        }
    return alike


def _distance(a: Sequence[str], b: Sequence[str]) -> float:
    """Edit distance (V. Levenshtein, 1966) over the length of the longer sequence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1] / max(len(a), len(b), 1)
