"""Public data sets by name. Addresses and checksums are those of ``torchaudio.datasets``."""

import os
from dataclasses import dataclass
from pathlib import Path

from ...runtime.manifest import Source


@dataclass(frozen=True)
class DataSet:
    """Recordings that anyone may fetch."""

    source: Source
    module: str
    """Of ``torchaudio.datasets``."""
    archive: str
    """Part of its address that no other archive of the module has."""


DATA_SETS = {
    "speech-commands": DataSet(
        Source(
            name="Google Speech Commands v0.02",
            licence="CC BY 4.0",
            url="https://arxiv.org/abs/1804.03209",
            attribution="Pete Warden, Google",
        ),
        "speechcommands",
        "speech_commands_v0.02",
    ),
    "librispeech": DataSet(
        Source(
            name="LibriSpeech dev-clean",
            licence="CC BY 4.0",
            role="free speech",
            url="https://www.openslr.org/12",
            attribution="Vassil Panayotov and others, LibriVox readers",
        ),
        "librispeech",
        "dev-clean",
    ),
}
"""Single words (2.3 GB), and 5.4 hours of 40 people who read (340 MB)."""


def download_data_set(name: str, folder: str | os.PathLike[str]) -> Path:
    """Fetch a data set of :data:`DATA_SETS` into ``folder``.

    Raises:
        EarmarkError: as :func:`earmark.train.collect.archive.download_archive`.
    """
    # The names are for the command line, which is to answer without what training needs.
    from ..torchaudio_import import torchaudio
    from .archive import download_archive

    wanted = DATA_SETS[name]
    checksums = getattr(torchaudio.datasets, wanted.module)._CHECKSUMS
    [(url, sha256)] = [item for item in checksums.items() if wanted.archive in item[0]]
    return download_archive(url, sha256, folder, wanted.source)
