"""The finished parts of a soak on disk, so that an interrupted one goes on with the next."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ...runtime.errors import EarmarkError
from ...runtime.files import read_text, write_text

Part = TypeVar("Part")
SETTINGS = "settings"
MAX_PART_BYTES = 256 << 20
"""Largest part: the detections of the longest soak."""


@dataclass(frozen=True)
class State:
    """A folder with one JSON file for each finished part, or nothing that is kept.

    A part is whole or missing: memory and drift mean something only for one process that has heard
    all of the audio, so that an interrupted part begins anew.
    """

    folder: Path | None

    @classmethod
    def open(cls, folder: str | None, settings: dict[str, Any]) -> "State":
        """The parts of the same soak, if ``folder`` holds any.

        Args:
            folder: made where it is missing; None keeps nothing.
            settings: all that the outcome depends on, as JSON values.

        Raises:
            EarmarkError: the parts there were made with other settings, or cannot be read.
        """
        state = cls(Path(folder) if folder else None)
        before = state.get(SETTINGS, dict[str, Any])
        if before is None:
            state.put(SETTINGS, settings)
        else:
            other = [name for name in settings if before.get(name) != settings[name]]
            if other:
                raise EarmarkError(
                    f"{folder}: holds a soak with another {', '.join(other)}: "
                    "name another folder with --state"
                )
        return state

    def get(self, part: str, kind: type[Part]) -> Part | None:
        """What was put, None where the part is not finished.

        Args:
            part: its name.
            kind: what it must be.

        Raises:
            EarmarkError: its file cannot be read, or is of another kind.
        """
        path = self._path(part)
        if path is None or not path.exists():
            return None
        try:
            return TypeAdapter(kind).validate_json(read_text(path, MAX_PART_BYTES))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "as a whole"
            raise EarmarkError(
                f"{path}: is damaged ({place}: {first['msg']}): remove it, or name another folder "
                "with --state"
            ) from error

    def put(self, part: str, value: Any) -> None:
        """Keep a finished part."""
        path = self._path(part)
        if path is not None:
            write_text(path, json.dumps(value))

    def _path(self, part: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{part}.json"
