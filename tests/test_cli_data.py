"""The verbs synth, download and corpus, as the command line calls them."""

import json
import tracemalloc
from argparse import ArgumentParser
from pathlib import Path

import pytest
import soundfile
from earmark.runtime.command import Command
from earmark.runtime.errors import EarmarkError
from earmark.train import cli_data
from earmark.train.collect import public
from earmark.train.data.corpus import scan


def run(command: Command, *arguments: object) -> int:
    parser = ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, [0.1] * 1600, 16000)


def test_synth_reports_in_json(tmp_path: Path, capsys) -> None:
    pytest.importorskip("espeakng_loader")
    command = (cli_data.synth, "go", "-o", tmp_path / "w", "--other", "no, hey you")
    assert run(*command, "--clips", 2, "--workers", 1) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "type": "synth",
        "folder": str(tmp_path / "w"),
        "keywords": ["go"],
        "others": ["no", "hey you"],
        "clips": 6,
        "kept": 0,
    }
    assert scan(tmp_path / "w").words == ("go", "hey_you", "no")
    with pytest.raises(EarmarkError, match="--workers 0"):
        run(*command, "--workers", 0)


def test_download_says_where_the_data_is(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(public, "download_data_set", lambda _, folder: folder)
    assert run(cli_data.download, "speech-commands", "-o", tmp_path / "sc") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["folder"] == str(tmp_path / "sc")
    assert report["source"]["licence"] == "CC-BY-4.0"


def test_corpus_counts_and_checks(tmp_path: Path, capsys) -> None:
    for word in ("yes", "no"):
        for speaker in range(40):
            clip(tmp_path / word / f"{speaker}_nohash_0.wav")
    assert run(cli_data.corpus, tmp_path, "--json", "--keywords", "yes", "--decode") == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["words"]) == {"yes", "no"}
    assert sum(report["words"]["yes"].values()) == 40 == sum(report["speakers"].values())
    assert report["unreadable"] == 0
    assert report["fingerprint"] == scan(tmp_path).fingerprint
    assert run(cli_data.corpus, tmp_path) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "speakers" in captured.err
    with pytest.raises(EarmarkError, match="'maybe'"):
        run(cli_data.corpus, tmp_path, "--keywords", "maybe")


def test_what_corpus_would_do_nothing_with_is_refused(tmp_path: Path) -> None:
    clip(tmp_path / "yes" / "a.wav")
    with pytest.raises(EarmarkError, match="--at-least goes with --keywords: leave it out"):
        run(cli_data.corpus, tmp_path, "--at-least", 50)


def test_corpus_is_written_as_shards(tmp_path: Path, capsys) -> None:
    for speaker in range(40):
        clip(tmp_path / "words" / "yes" / f"{speaker}_nohash_0.wav")
    command = (cli_data.corpus, tmp_path / "words", "--shards", tmp_path / "out", "--json")
    assert run(*command, "--shard-size", 0.04) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["shards"] == {"train": 2, "validation": 1, "test": 1}
    assert run(cli_data.corpus, tmp_path / "out" / "*.tar", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["words"] == report["words"] and again["speakers"] == report["speakers"]
    with pytest.raises(EarmarkError, match="shard size 0 MB"):
        run(*command, "--shard-size", 0)
    with pytest.raises(EarmarkError, match="--shard-size goes with --shards"):
        run(cli_data.corpus, tmp_path / "words", "--shard-size", 1)


def test_corpus_with_an_unreadable_clip_fails(tmp_path: Path, capsys) -> None:
    clip(tmp_path / "yes" / "a.wav")
    (tmp_path / "yes" / "b.wav").write_text("no audio")
    assert run(cli_data.corpus, tmp_path) == 0
    assert run(cli_data.corpus, tmp_path, "--decode", "--json") == 1
    assert json.loads(capsys.readouterr().out)["unreadable"] == 1


def test_corpus_reads_every_clip_and_keeps_none(tmp_path: Path) -> None:
    first = tmp_path / "yes" / "0.wav"
    clip(first)
    assert run(cli_data.corpus, tmp_path, "--decode") == 0  # what it imports is there
    soundfile.write(first, [0.1] * 16000, 16000)
    for number in range(1, 512):
        first.with_name(f"{number}.wav").hardlink_to(first)
    tracemalloc.start()
    assert run(cli_data.corpus, tmp_path, "--decode") == 0
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 512 * 2 * 16000


def test_corpus_remarks_on_what_its_counts_do_not_show(tmp_path: Path, capsys) -> None:
    for number in range(4):
        clip(tmp_path / "yes" / f"me_nohash_{number}.wav")
    (tmp_path / "validation_list.txt").write_text("")
    assert run(cli_data.corpus, tmp_path) == 0
    told = capsys.readouterr().err
    assert "no clips for validation and test: add clips by more speakers" in told
    assert "not read: --decode reads them" in told
    assert run(cli_data.corpus, tmp_path, "--decode") == 0
    assert "--decode" not in capsys.readouterr().err
    (tmp_path / "yes" / "b.wav").touch()
    assert run(cli_data.corpus, tmp_path, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["unreadable"] == 1
    assert f"1 files are empty: {tmp_path / 'yes' / 'b.wav'}" in captured.err


def test_corpus_names_the_clips_that_are_clipped(tmp_path: Path, caplog) -> None:
    for name in "abcdefg":
        clip(tmp_path / "yes" / f"{name}.wav")
    for name in "bcdefg":
        soundfile.write(tmp_path / "yes" / f"{name}.wav", [1.0, -1.0] * 800, 16000)
    assert run(cli_data.corpus, tmp_path, "--decode") == 0
    named = ", ".join(str(tmp_path / "yes" / f"{name}.wav") for name in "bcdef")
    assert "clipped, used all the same (6;" in caplog.text and f": {named}, ..." in caplog.text


def test_corpus_counts_and_decodes_every_class_of_a_clip(tmp_path: Path, capsys) -> None:
    for name in ("a", "b", "c"):
        clip(tmp_path / f"{name}.wav")
    table = tmp_path / "clips.csv"
    table.write_text(
        "filename,labels,split\na.wav,dog;rain,train\nb.wav,dog,train\nc.wav,dog;rain,test\n"
    )
    assert run(cli_data.corpus, table, "--decode", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["words"] == {
        "dog": {"train": 2, "validation": 0, "test": 1},
        "rain": {"train": 1, "validation": 0, "test": 1},
    }
    assert report["unreadable"] == 0
    (tmp_path / "b.wav").write_text("no audio")
    assert run(cli_data.corpus, table, "--decode", "--json") == 1
