"""Where makers and those who pass their weights on name two licences, a manifest names both."""

from earmark.train.teachers.credits import credit
from earmark.train.teachers.settings import TeacherSettings


def test_whisper_is_under_what_its_makers_say_and_what_the_hub_says() -> None:
    source = credit(TeacherSettings(kind="whisper", weights="x"))
    assert source and source.licence.startswith("MIT (OpenAI's repository;")
    assert "Hugging Face say Apache-2.0" in source.licence
