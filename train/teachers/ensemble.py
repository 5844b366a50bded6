"""The teachers of a student, which answer every step anew or have answered beforehand."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.errors import EarmarkError
from ..data.sources import read_sources
from ..run import RunInfo
from .cache import Table, answers, ask, blocks
from .run import TeacherRun, load_teacher
from .teacher import Outputs

_SAMPLE = 2048
"""Clips whose embeddings show the principal components."""


class Recordings(Protocol):
    """The clips of a run: how many there are by number, and what stands for some in a hash."""

    def __len__(self) -> int: ...

    def groups(self) -> Iterator[NDArray[np.int64]]: ...

    def content(self, clips: NDArray[np.int64]) -> Iterator[bytes]: ...


Render = Callable[[NDArray[np.int64], int], Tensor]


@dataclass
class Ensemble:
    """Teachers of the same classes; what they say is averaged by the loss."""

    runs: tuple[TeacherRun, ...]
    tables: list[Table] = field(default_factory=list)
    """One for each teacher once all has been answered, else none."""
    row: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """int64 [clips]: where in the tables each clip is, those of background last."""

    @classmethod
    def load(cls, paths: Sequence[str], labels: tuple[str, ...], task: str) -> Self:
        """Read teachers' run directories.

        Args:
            paths: the directories.
            labels, task: those of the student's recipe, which its teachers must share.

        Raises:
            EarmarkError: one is no complete teacher, or one of other classes or another task, or is
                named twice.
        """
        places = [Path(path).resolve() for path in paths]
        for index, path in enumerate(paths):
            # It would count twice in the mean.
            if places[index] in places[:index]:
                raise EarmarkError(
                    f"recipe field distill.teachers: {path} is named twice: name each run once"
                )
        runs = tuple(map(load_teacher, paths))
        for run in runs:
            if run.info.labels != labels:
                raise EarmarkError(
                    f"{run.path}: teaches {', '.join(run.info.labels)}, not {', '.join(labels)}: "
                    "train it on the same keywords in the same order"
                )
            if run.recipe.task != task:
                raise EarmarkError(
                    f"{run.path}: has the task {run.recipe.task}, not {task}: train it with the "
                    "task of this recipe"
                )
        return cls(runs)

    @property
    def embedding_width(self) -> int:
        """Of the teachers' embeddings, one after the other."""
        return sum(run.teacher.backbone.width for run in self.runs)

    def credit(self, info: RunInfo, unlabelled: Sequence[str]) -> RunInfo:
        """The facts of a student's run, with its teachers and their sources among them."""
        sources = [*info.sources, *(source for run in self.runs for source in run.sources)]
        for folder in unlabelled:
            found = read_sources(Path(folder))
            sources += [dataclasses.replace(source, role="unlabelled audio") for source in found]
        return dataclasses.replace(
            info,
            teacher=" + ".join(run.title for run in self.runs),
            teachers_sha256=tuple(run.digest for run in self.runs),
            sources=tuple(dict.fromkeys(sources)),
        )

    def to(self, device: torch.device) -> None:
        """Move the teachers."""
        for run in self.runs:
            run.teacher.to(device)

    def answer_all(
        self,
        folder: Path,
        clips: Recordings,
        background: int,
        views: int,
        render: Render,
        settings: dict[str, Any],
        *,
        embed: bool,
        device: torch.device,
        **processes: Any,
    ) -> None:
        """Have all views of all clips answered, by what is in the cache and by the teachers.

        Arguments are those of :func:`earmark.train.teachers.cache.answers`, and:

        Args:
            clips: the recordings.
            background: how many empty clips there are, of negative numbers.
            device: where the teachers run.
        """
        groups = [*clips.groups(), -1 - np.arange(background)]
        parts = [block for group in groups for block in blocks(group, clips.content)]
        place = torch.from_numpy(np.concatenate([block.clips for block in parts]))
        # From the end, as the numbers of empty clips are negative.
        self.row = torch.empty_like(place)
        self.row[place] = torch.arange(len(place))
        for run in self.runs:
            teacher = run.teacher.to(device)
            follows = settings | {"teacher": run.digest}
            name = run.title
            self.tables.append(
                answers(
                    folder, teacher, name, follows, parts, views, render, embed=embed, **processes
                )
            )
            teacher.to("cpu")

    def __call__(self, clip: Tensor, view: Tensor, wav: Tensor | None) -> list[Outputs]:
        """Every teacher's answers to a batch.

        Args:
            clip: numbers of the clips, int64 [batch].
            view: which of their views, int64 [batch].
            wav: the waveforms of these views, [batch, samples]; not needed once all has been
                answered.
        """
        if not self.tables:
            assert wav is not None
            return [run.teacher(wav) for run in self.runs]
        row = self.row[clip.cpu()]
        answered = [table(row, view) for table in self.tables]
        return [Outputs(*(part.to(clip.device) for part in one)) for one in answered]

    def embeddings(self, clips: Recordings, render: Render) -> Tensor:
        """Embeddings of one view of clips from all over the recordings, float32 [clips, width]."""
        some = np.unique(np.linspace(0, len(clips) - 1, _SAMPLE).astype(np.int64))
        if self.tables:
            parts = [table.embedding[self.row[some], 0] for table in self.tables]
        else:
            parts = [ask(run.teacher, render, some, 0).embedding for run in self.runs]
        return torch.cat([part.float() for part in parts], 1)
