"""One law: a stream's logits are those of the whole signal, however it is cut."""

import dataclasses

import pytest
import torch
from earmark.train.mfcc import MfccSettings
from earmark.train.student import Student, StudentSettings
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_student import SHAPES, make

STUDENTS = [make(shape) for shape in SHAPES]


@settings(max_examples=40, deadline=None)
@given(
    which=st.integers(0, len(SHAPES) - 1),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    seed=st.integers(0, 2**31),
)
def test_streaming_equals_whole(which: int, cuts: list[int], seed: int) -> None:
    student = STUDENTS[which]
    generator = torch.Generator().manual_seed(seed)
    pcm = 0.1 * torch.randn(2, sum(cuts) * student.step, generator=generator)
    with torch.no_grad():
        whole, end = student(pcm)
        cache, parts = student.empty_cache(2), []
        for piece in pcm.split([cut * student.step for cut in cuts], dim=1):
            logits, cache = student(piece, cache)
            parts.append(logits)
    streamed = torch.cat(parts, dim=1)
    assert streamed.shape == (2, sum(cuts), 5)
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(cache, end, atol=1e-4, rtol=0)


@pytest.mark.parametrize("student", STUDENTS)
def test_training_form_equals_streaming_form(student: Student) -> None:
    pcm = 0.1 * torch.randn(2, 20 * student.step)
    with torch.no_grad():
        torch.testing.assert_close(student.classify(student.log_mel(pcm)), student(pcm)[0])


@pytest.mark.parametrize("student", STUDENTS)
def test_no_logit_depends_on_the_future_or_beyond_the_receptive_field(student: Student) -> None:
    reach = student.geometry(student.step).receptive_field
    first = 4
    steps = first + -(-reach // student.step) + 6
    generator = torch.Generator().manual_seed(0)
    pcm = 0.1 * torch.randn(1, steps * student.step, generator=generator)
    begin, end = first * student.step, (first + 1) * student.step
    changed = pcm.clone()
    changed[0, begin:end] += torch.randn(student.step, generator=generator)
    with torch.no_grad():
        difference = (student(pcm)[0] - student(changed)[0]).abs().amax(dim=2)[0]
    ends = torch.arange(1, steps + 1) * student.step
    touched = difference > 1e-6
    assert touched[first : first + 3].all()
    assert not touched[ends <= begin].any()
    assert not touched[ends - reach >= end].any()


def test_default_size() -> None:
    student = Student(10, StudentSettings(), MfccSettings())
    assert student.parameters_trained <= 100_000
    sizes = [
        Student(10, dataclasses.replace(StudentSettings(), width=width), MfccSettings())
        for width in (16, 32, 64)
    ]
    counts = [s.parameters_trained for s in sizes]
    assert counts == sorted(counts) and counts[0] < counts[1] / 2 < counts[2] / 4


def test_part_of_a_step_is_refused() -> None:
    student = STUDENTS[0]
    with pytest.raises(ValueError, match="no multiple of the step"):
        student(torch.zeros(1, student.step + 1))
