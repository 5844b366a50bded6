"""What the command line says of itself: help of every verb, examples that parse, completion."""

import importlib.metadata
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from earmark.runtime.cli import command_line, commands, main

VERBS = commands()


def earmark_arguments(line: str) -> list[str]:
    """The arguments of ``earmark`` in a line for a shell: without comment, pipes, redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    start = words.index("earmark") + 1
    ends = (i for i in range(start, len(words)) if not set(words[i]) - set("|<>&;"))
    return words[start : next(ends, len(words))]


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    text, verb = capsys.readouterr().out, VERBS[name]
    assert verb.summary and verb.summary[0].islower() and not verb.summary.endswith(".")
    assert f"\n{verb.summary}\n" in text
    assert text.rpartition("\nexamples:\n")[2].strip().startswith(verb.examples[0])


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_argument_has_a_help(name: str) -> None:
    parser = ArgumentParser()
    VERBS[name].configure(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize(
    "line", [line for _, verb in sorted(VERBS.items()) for line in verb.examples]
)
def test_an_example_parses(line: str) -> None:
    arguments = earmark_arguments(line)
    parsed = command_line(VERBS).parse_args(arguments)
    assert parsed.verb == arguments[0] and line in VERBS[parsed.verb].examples


def test_an_unknown_option_shows_the_usage_of_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["info", "x", "-o", "y"])
    assert done.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: earmark info ")
    assert err.endswith("earmark info: error: unrecognized arguments: -o y\n")


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    code = (
        "import sys; from earmark.runtime.cli import commands; commands()\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "earmark" in done.stdout.split()
    heavy = {"torch", "torchaudio", "lightning", "onnx", "onnxruntime", "matplotlib", "rich"}
    assert not heavy & set(done.stdout.split())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"earmark {importlib.metadata.version('earmark')}\n"


def completed(shell: str, script: Path, line: str, folder: Path) -> list[str]:
    """What a shell offers for the last word of a line."""
    words = line.split(" ")
    programs = {
        "bash": f"source {script}; COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); "
        f"COMP_CWORD={len(words) - 1}; _shtab_earmark; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        "fish": f"source {script}; complete -C '{line}'",
    }
    done = subprocess.run(
        [shell, "-c", programs[shell]], cwd=folder, capture_output=True, text=True, check=True
    )
    return [offer.partition("\t")[0] for offer in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes_verbs_options_and_paths(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "mine.onnx").touch()
    (tmp_path / "minor").mkdir()
    assert set(completed(shell, script, "earmark de", tmp_path)) == {"demo", "det", "detect"} | {
        "devices"
    }
    assert completed(shell, script, "earmark detect --heart", tmp_path) == ["--heartbeat"]
    assert "mine.onnx" in completed(shell, script, "earmark info mi", tmp_path)
    folders = completed(shell, script, "earmark export mi", tmp_path)
    assert [folder.rstrip("/") for folder in folders] == ["minor"]


def test_the_script_for_zsh_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "_earmark").write_text(capsys.readouterr().out)
    done = subprocess.run(["zsh", "-n", str(tmp_path / "_earmark")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "_earmark").read_text()
    assert text.startswith("#compdef earmark") and "detect" in text
