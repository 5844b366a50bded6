"""What stands above a starter recipe: what was found, what to train and what to measure."""

from collections.abc import Iterator

from ...runtime.manifest import UNKNOWN
from ..data.survey import Survey
from .choices import UNEVEN
from .scale import FEW, MANY, Device, Network, scale_of


def head(found: Survey, network: Network, device: Device, keywords: bool) -> Iterator[str]:
    low, middle, high = found.seconds
    smallest, largest = min(found.classes.values()), max(found.classes.values())
    rates = ", ".join(f"{rate} Hz ({count})" for rate, count in list(found.rates.items())[:4])
    kind = "any number of classes a clip" if found.multilabel else "one class a clip"
    yield (
        f"Planned from {found.clips} clips, {found.hours:.2f} h, {len(found.classes)} classes of "
        f"{smallest} to {largest} clips, {kind}; {low:.2f}, {middle:.2f} and {high:.2f} s long at "
        f"the 5th, 50th and 95th percentile; {rates}; {len(found.folds) or 'no'} folds; "
        f"{found.noise} noise recordings. Target device: {device}."
    )
    if not (keywords or found.multilabel or UNKNOWN in found.classes):
        yield (
            "For telling these classes apart, not for a stream: whatever is heard, noise and other "
            "speech too, is answered with one of them. To spot words in a stream, give --keywords."
        )
    yield _reason(found, network)
    yield _metric(found, keywords)
    if found.folds and network == "student":
        yield (
            "Folds are there: `earmark crossval` with this recipe trains on all but one in turn, "
            "with and without SpecAugment, and puts the k-NN baseline beside it."
        )


def _reason(found: Survey, network: Network) -> str:
    if scale_of(found.clips) == "few":
        return (
            f"Architecture: fewer than {FEW:,} clips, too few to fine-tune a large network "
            "on. The bar to clear is the k-NN baseline on pooled MFCCs; the small network below "
            "lives on augmentation."
        )
    if scale_of(found.clips) == "some":
        choice = (
            f"Architecture: {FEW:,} to {MANY:,} clips are enough to fine-tune a pre-trained BEATs "
            '(`earmark download beats`) or AST (kind = "ast").'
        )
    else:
        choice = (
            f"Architecture: more than {MANY:,} clips are enough to train a large network from "
            'scratch; for speech the Whisper encoder (kind = "whisper") is the other way.'
        )
    if network == "student":
        return (
            f"{choice} Neither runs in real time on an edge device: it is the teacher there, and "
            "the CNN below what it teaches and what is deployed, in int8. `earmark plan --device "
            "gpu` writes the recipe of the teacher; with `augment.views = 16` and "
            '`distill.teachers = ["its run"]` here, it teaches.'
        )
    return (
        f"{choice} It is trained by `earmark teach` and judged by `earmark evaluate`. What `earmark"
        " export` makes is a student of it: `earmark plan --device edge` writes its recipe."
    )


def _metric(found: Survey, keywords: bool) -> str:
    if found.multilabel:
        return "Metric: mean average precision, since labels do not exclude one another."
    if keywords:
        return (
            "Metric: top-1 on clips; then false rejects against false accepts per hour on streams, "
            "since a spotter hears little but other sounds."
        )
    if found.imbalance >= UNEVEN:
        return (
            f"Metric: macro F1 and recall by class, since the largest class has "
            f"{found.imbalance:.1f} times the clips of the smallest and would decide the accuracy."
        )
    more = ", top-5 beside it" if len(found.classes) > 5 else ""
    return f"Metric: top-1{more}, since classes are of about equal size."
