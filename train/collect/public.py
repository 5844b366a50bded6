"""Public data sets by name. Addresses and checksums are those of ``torchaudio.datasets``."""

import os
from dataclasses import dataclass
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.manifest import Source


@dataclass(frozen=True)
class DataSet:
    """Recordings that anyone may fetch."""

    source: Source
    url: str
    """Of its archive."""
    sha256: str


DATA_SETS = {
    "speech-commands": DataSet(
        Source(
            name="Google Speech Commands v0.02",
            licence="CC-BY-4.0",
            url="https://arxiv.org/abs/1804.03209",
            attribution="Pete Warden, Google",
        ),
        "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    ),
    "librispeech": DataSet(
        Source(
            name="LibriSpeech dev-clean",
            licence="CC-BY-4.0",
            role="free speech",
            url="https://www.openslr.org/12",
            attribution="Vassil Panayotov and others, LibriVox readers",
        ),
        "http://www.openslr.org/resources/12/dev-clean.tar.gz",
        "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    ),
}
"""Single words (2.3 GB), and 5.4 hours of 40 people who read (340 MB)."""


def download_data_set(name: str, folder: str | os.PathLike[str]) -> Path:
    """Fetch a data set of :data:`DATA_SETS` into ``folder``.

    Raises:
        EarmarkError: there is none of this name, or as
            :func:`earmark.train.collect.archive.download_archive`.
    """
    # The names are for the command line, which is to answer without what training needs.
    from .archive import download_archive

    if name not in DATA_SETS:
        raise EarmarkError(f"data set {name!r}: choose from {', '.join(DATA_SETS)}")
    wanted = DATA_SETS[name]
    return download_archive(wanted.url, wanted.sha256, folder, wanted.source)
