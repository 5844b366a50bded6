"""The released BEATs checkpoints: checksums, and fetching them from mirrors.

Microsoft publishes no checksums, and its links (OneDrive) often fail. The sums below are those of
third parties: for ``BEATs_iter3``, ``BEATs_iter3_plus_AS2M`` and the mirrored fine-tuned ones,
several projects that fetched from different places agree; for the others one project vouches. None
of the mirrors is official.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.manifest import Source
from ..collect.fetch import fetch_file, is_fetched

OFFICIAL = "https://github.com/microsoft/unilm/tree/master/beats"
DEFAULT = "BEATs_iter3"
"""The best released starting point for short words (Chen et al. 2022, table 1)."""


@dataclass(frozen=True)
class Checkpoint:
    """A released file."""

    sha256: str
    mirrors: tuple[str, ...] = ()
    """Folders on the Hugging Face hub that hold it, tried in this order."""


_HUB = "https://huggingface.co"
# Revisions are fixed where one is known to hold the file.
_LPEPINO = "lpepino/beats_ckpts/resolve/5b53b0404df452a3a607d7e67687227730e5bad1"
_BENCR = "datasets/Bencr/beats-checkpoints/resolve/082fb1849d55bef1ee52ee8d8910b3adc69d4bc8"
_MOONEYKO = "mooneyko/BEATs/resolve/18cfdf9d43820b2db86c6dfde4ae2f7531d1f5ad"
_THUDYH = "THUdyh/Ola_speech_encoders/resolve/main"

CHECKPOINTS = {
    "BEATs_iter1": Checkpoint("b5f4cc10bcbff63a437c695f33389e6411513b3f7d5cdae8fb62b5005f4a1fcd"),
    "BEATs_iter2": Checkpoint("81a23e00aa4878d7e8627ded87ea697fb347c8ceffed21223e0398ed0fa34ad8"),
    "BEATs_iter3": Checkpoint(
        "8d1b234032a9ccff353612dc6c20982346dc2968b205b79d97303eb5e77bfb34", (_LPEPINO,)
    ),
    "BEATs_iter3_plus_AS20K": Checkpoint(
        "8008b126bb5e8ab08912c60c58847ed676d32e64a5864c922356b7c2522fb2f8"
    ),
    "BEATs_iter3_plus_AS2M": Checkpoint(
        "d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
        (_BENCR, _LPEPINO, _MOONEYKO),
    ),
    "BEATs_iter3_finetuned_on_AS2M_cpt1": Checkpoint(
        "379369a41d0b3749f746cdcea8036de506cb3aedecce84de7db0a75fda2a4fe7", (_LPEPINO,)
    ),
    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1": Checkpoint(
        "7f9362028ac6e5c049e8dc314d87e90e4f82a15a8e472deb56af55d7f9b34d6a"
    ),
    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2": Checkpoint(
        "e5815275a04b6885e7b8af63d120b29bffae2cd2225cf4915e1ec6d819d3022c", (_THUDYH,)
    ),
}


def source(name: str) -> Source:
    """Who made the checkpoint ``name``, for the manifest of a model that it taught."""
    return Source(
        name=name,
        licence="MIT (the repository's; the weights have none of their own)",
        role="teacher",
        url=OFFICIAL,
        attribution="Microsoft",
    )


def download_beats(
    folder: str | os.PathLike[str], name: str = DEFAULT, url: str | None = None
) -> Path:
    """Fetch a released checkpoint (about 360 MB) as ``folder/NAME.pt``, whole or not at all.

    What has been fetched is kept in a file that ends in ``.partial``; the next call, or the next
    mirror, goes on from there. A right file that is there already is left as it is.

    Args:
        folder: made if missing.
        name: one of ``CHECKPOINTS``.
        url: where to fetch from, in place of the mirrors; the checksum is asked for all the same.

    Returns:
        The file.

    Raises:
        EarmarkError: no such checkpoint, no mirror known, no connection, a wrong checksum, a full
            disk, another file of that name.
    """
    if name not in CHECKPOINTS:
        raise EarmarkError(f"{name}: no BEATs checkpoint: choose from {', '.join(CHECKPOINTS)}")
    wanted = CHECKPOINTS[name]
    target = Path(folder, f"{name}.pt")
    try:
        if is_fetched(target, wanted.sha256):
            return target
        urls = [f"{_HUB}/{mirror}/{target.name}" for mirror in wanted.mirrors]
        urls = urls if url is None else [url]
        if not urls:
            raise EarmarkError(
                f"{name}: no mirror is known: get it from {OFFICIAL} and put it at {target}, or "
                "name an address with --url"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch_from(urls, target, wanted.sha256)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EarmarkError(f"{target}: cannot be read or written ({reason})") from error
    return target


def _fetch_from(urls: list[str], target: Path, sha256: str) -> None:
    partial = target.with_name(f"{target.name}.partial")
    failure: EarmarkError | None = None
    for url in urls:
        try:
            fetch_file(url, partial, sha256)
        except EarmarkError as error:
            failure = error
            continue
        partial.replace(target)
        return
    assert failure is not None
    raise failure
