"""The pages are true: commands run, recipes are read, names exist, links lead somewhere.

Each page's commands run in their order in a folder with stand-ins for the recordings and models
that it names: tones for words, a few clips for a corpus, one epoch for many. What would wait for a
microphone, a network or a user is replaced. Other programs' commands are checked for the files and
extras that they name.
"""

import asyncio
import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark import runtime
from earmark.benchmarks.accuracy import few_shot
from earmark.benchmarks.latency import cold
from earmark.export import golden
from earmark.export.export import export
from earmark.export.page import page as page_module
from earmark.export.page.onnxruntime_web import FILES
from earmark.export.page.serve import PageServer
from earmark.export.verify import Limits
from earmark.runtime import cli, listen, record
from earmark.runtime.audio import to_int16
from earmark.runtime.cli import command_line, main
from earmark.runtime.clips import save, word_place
from earmark.runtime.engine import DEFAULT_MODEL
from earmark.runtime.layout import hashed_split
from earmark.runtime.microphone import portaudio
from earmark.runtime.microphone.portaudio import Device
from earmark.runtime.sources import Counters
from earmark.runtime.wyoming import server as wyoming_server
from earmark.train.collect import public
from earmark.train.collect.fetch import file_sha256
from earmark.train.recipe import parse_recipe
from earmark.train.teachers import beats_checkpoints, speech_embedding_file
from test_speech_embedding import published

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "train" / "recipes"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RATE = 16000
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "stop", "go")

SMALLER = {
    "synth": "--clips 6 --workers 1",
    "train": "--set train.epochs=1 --set train.steps_per_epoch=2 --set train.batch=16"
    " --set student.width=8 --set train.accelerator=cpu --set train.threads=1",
    "teach": "--set train.epochs=1 --set train.steps_per_epoch=2 --set train.batch=16"
    " --set train.accelerator=cpu --set train.threads=1",
    "listen": "--seconds 0.5 --no-view",
    "serve": "--port 0",
    "bench": "--rounds 1 --turn 0.02 --paced 0",
    "bench-streams": "--streams 1 --batch 1 --seconds 0.2 --rounds 1",
    "fuzz": "--target manifest",
    "few-shot": "--sizes 4 --seeds 1 --set train.init= --set train.epochs=1"
    " --set train.steps_per_epoch=2 --set train.batch=8 --set student.width=8",
    "det": "--snr clean",
    "evaluate": "--snr clean",
    "transcribe": "--workers 1",
    "crossval": "--alone --set train.epochs=1 --set student.width=8 --set data.clip=2.0",
    "sweep": "--set train.epochs=1 --set train.steps_per_epoch=1 --set train.batch=16"
    " --set student.width=8 --set train.accelerator=cpu --set train.threads=1",
}
"""What is added to a verb so that it ends soon."""
INSTEAD = (
    # Values that a page leaves to the reader.
    (r"(?<=--hours )N\b", "0.003"),
    (r"(?<=--cases )(N|\d+)\b", "9"),
    (r"(?<=--seed )S\b", "1"),
    (r"(?<=soak )--hours 1\b", "--hours 0.003"),
    (r"MODEL\.\.\.", "model.onnx"),
    (r"--(noise|speech|other) DIR\b", r"--\1 data/room"),
    (r"--data DIR\b", "--data data/speech-commands"),
    (r"data/wake-words", "data/libri"),
    # What is elsewhere.
    (r"mqtts://me@broker\.lan", "mqtt://127.0.0.1:9"),
    (r"--http 8080", "--http 127.0.0.1:0"),
    (r"--exec 'notify-send heard'", "--exec true"),
    (r"distill\.weight=0\.5,0\.9", "distill.weight=0.5"),
    (r"distill\.temperature=1,2,4", "distill.temperature=1,2"),
    # Processes that start this program anew.
    (r" --set train\.devices=8", ""),
    # A model of 90 million weights.
    (r"--full( beats ast)?(?= --)", "--full whisper-tiny"),
    (r"--peers", "--peers pymicro-wakeword"),
    # The same but for its weights.
    (r"commands-1\.float32\.onnx", "commands.float32.onnx"),
)
"""What stands for a part of a command: a pattern and its replacement."""
PROGRAMS = ("arecord", "printf", "journalctl", "apt", "python3", "npm", "g++")
"""Other programs that pages may call."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The command lines of a page's shell blocks, joined where they are continued."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def tone(index: int, random: np.random.Generator) -> np.ndarray:
    """A second with a mistuned tone of half a second, another for each index."""
    time = np.arange(RATE) / RATE
    pitch = 300 * 1.33**index * random.uniform(0.97, 1.03)
    inside = abs(time - random.uniform(0.45, 0.55)) < 0.25
    wav = random.uniform(0.1, 0.5) * np.sin(2 * np.pi * pitch * time) * inside
    return (wav + random.normal(0, 0.002, RATE)).astype(np.float32)


def write_words(folder: Path, words: tuple[str, ...], speakers: dict[str, int]) -> None:
    random = np.random.default_rng(len(words))
    ids = [f"{i:04x}" for i in range(1000)]
    chosen = [
        speaker
        for split, count in speakers.items()
        for speaker in [s for s in ids if hashed_split(s) == split][:count]
    ]
    for index, word in enumerate(words):
        (folder / word).mkdir(parents=True, exist_ok=True)
        for speaker in chosen:
            soundfile.write(folder / word / f"{speaker}_nohash_0.wav", tone(index, random), RATE)


def write_noise(folder: Path, names: list[str], seconds: float) -> None:
    random = np.random.default_rng(len(names))
    folder.mkdir(parents=True)
    for name in names:
        noise = random.normal(0, 0.02, round(seconds * RATE))
        soundfile.write(folder / f"{name}.wav", noise.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages take for granted."""
    folder = tmp_path_factory.mktemp("user")
    words = folder / "data" / "speech-commands"
    others = ("tree", "bed", "cat", "eight", "five", "happy", "one", "zero")
    write_words(words, (*KEYWORDS, *others), {"train": 6, "validation": 4, "test": 2})
    write_noise(words / "_background_noise_", ["white", "more"], 30)
    takes = [f"{fold}-{100 + i}-A-0" for fold in (1, 2, 3, 4) for i in range(4)]
    sounds = parse_recipe(tomllib.loads((RECIPES / "esc-10.toml").read_text()), "esc-10").keywords
    for sound in sounds:
        write_noise(folder / "data" / "esc-10" / sound, takes, 2)
    for name in ("esc-4", "esc-123", "noise", "room"):
        write_noise(folder / "data" / name, takes, 2)
    for name in ("libri-negatives", "libri", "speech"):
        write_noise(folder / "data" / name, [f"{i}-1-0001" for i in range(24)], 2.5)
    write_noise(folder / "data" / "talk", ["one", "two"], 1)
    write_words(folder / "clips", KEYWORDS[:2], {"train": 4, "validation": 2})
    quiet = np.random.default_rng(0).normal(0, 0.02, 6 * RATE)
    for name in ("room", "living-room", "recording"):
        soundfile.write(folder / f"{name}.wav", quiet, RATE)
    (folder / "data" / "beats").mkdir()
    shutil.copy(
        ROOT / "tests" / "fixtures" / "beats" / "tiny_pretrained.pt",
        folder / "data" / "beats" / "BEATs_iter3.pt",
    )
    embedding = folder / "data" / "speech-embedding" / speech_embedding_file.FILE
    embedding.parent.mkdir()
    published(embedding)
    shutil.copytree(RECIPES, folder / "train" / "recipes")
    shutil.copytree(ROOT / "docs" / "records", folder / "docs" / "records")
    return folder


class Microphone:
    """What ``listen`` needs of a microphone: one that hears a second of silence again and again."""

    name = "stand-in"
    device_rate = 16000.0
    counters = Counters(overflows=0, dropped=0.0, queued=0.0)

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> "Microphone":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            yield np.zeros(1600, np.float32)


@pytest.fixture
def user(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a reader is in, with what would wait for the world replaced."""
    shutil.copytree(stand_ins, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listen, "Microphone", Microphone)

    def recorded(arguments: Namespace) -> int:
        random = np.random.default_rng(0)
        for _ in range(6):
            place = word_place(
                Path(arguments.output), arguments.word, arguments.speaker, arguments.split
            )
            save(place, to_int16(tone(0, random)), RATE)
        return 0

    def devices() -> list[Device]:
        return [Device(0, "stand-in", "ALSA", 1, 48000.0, True)]

    async def served(*_: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(portaudio, "devices", devices)
    monkeypatch.setattr(record, "run", recorded)
    monkeypatch.setattr(wyoming_server.Server, "serve", served)
    monkeypatch.setattr(PageServer, "serve", lambda *_: None)
    monkeypatch.setattr(page_module, "onnxruntime_web", lambda _: dict.fromkeys(FILES, b""))
    monkeypatch.setattr(public, "download_data_set", lambda _, folder: Path(folder))
    monkeypatch.setattr(beats_checkpoints, "download_beats", lambda *_: Path())
    monkeypatch.setattr(speech_embedding_file, "download_speech_embedding", lambda *_: Path())
    # That of random weights stands for the released file.
    embedding = tmp_path / "data" / "speech-embedding" / speech_embedding_file.FILE
    monkeypatch.setattr(speech_embedding_file, "SHA256", file_sha256(embedding))
    # Nothing that was trained for a moment is worth a look at its accuracy.
    monkeypatch.setitem(export.__kwdefaults__, "limits", Limits(int8_labels=1.0))
    # Implementations in other languages are built and checked by the tests of the ports.
    monkeypatch.setattr(golden, "check_port", lambda *_: iter(()))
    monkeypatch.setattr(cold.cold_starts, "__defaults__", (1,))
    whole = few_shot.run
    monkeypatch.setattr(
        few_shot, "run", lambda folder, s: whole(folder, dataclasses.replace(s, synthetic=10))
    )
    monkeypatch.setattr(few_shot, "LIMITS", Limits(int8_labels=1.0))
    return tmp_path


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def check_other(words: list[str]) -> None:
    """A command of another program: what it names of this project is there."""
    if words[0] == "sudo":
        check_other(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) - set(targets) <= {w for w in words if "=" in w}, words
    elif Path(words[0]).name == "pip":
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(EXTRAS), words
    elif words[0] == "systemctl":
        units = [word for word in words[2:] if word.startswith("earmark")]
        assert all((ROOT / "docs" / "systemd" / f"{unit}.service").exists() for unit in units)
    elif words[0] == "cp":
        assert (ROOT / words[1]).exists()
    else:
        assert words[0] in (*PROGRAMS, "install"), words


def split(command: str) -> list[str]:
    """The words of the program of ours in a command line, or all of it: without comment, what
    feeds it and where its output goes."""
    for pattern, other in INSTEAD:
        command = re.sub(pattern, other, command)
    parts = [shlex.split(part, comments=True) for part in command.split(" | ")]
    ours = [part for part in parts if part and part[0] == "earmark"]
    words = (ours or parts)[0]
    return [word for word in words if not re.match(r"\d?>", word)]


def provide(user: Path, arguments: list[str]) -> None:
    """Put in place what an argument names and an earlier page would have made."""
    made = {arguments[i + 1] for i, word in enumerate(arguments) if word in ("-o", "--output")}
    for name in set(arguments) - made:
        path = user / name
        if path.exists():
            continue
        if name.endswith(".onnx"):
            shutil.copy(DEFAULT_MODEL, path)
        elif name == "recipe.toml":
            shutil.copy(user / "train/recipes/commands.toml", path)
        elif name.startswith("data/"):
            shutil.copytree(user / "data" / "speech-commands", path)
        elif name.startswith("runs/"):
            teacher = "teacher" in name
            recipe = f"train/recipes/commands{'-teacher' if teacher else ''}.toml"
            verb = "teach" if teacher else "train"
            assert main([verb, recipe, "-o", name, *SMALLER[verb].split()]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_programs_run(
    page: Path, user: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page, "toml"):
        if "keywords =" in block:
            (user / "recipe.toml").write_text(block)
    (user / "silence.raw").write_bytes(bytes(2 * RATE))
    # Pages of several runs show one command several times.
    for words, command in {tuple(split(line)): line for line in commands(page)}.items():
        if words[0] != "earmark":
            check_other(list(words))
            continue
        arguments = [*words[1:], *SMALLER.get(words[1], "").split()]
        provide(user, arguments)
        capfd.readouterr()
        with (user / "silence.raw").open() as silence:
            monkeypatch.setattr(sys, "stdin", silence)
            status = main(arguments)
        told = capfd.readouterr()
        assert status == 0, f"{command}: {told.err[-2000:]}"
        if written := re.search(r">(\S+)", command):
            (user / written[1]).write_text(told.out)
    for block in blocks(page, "python"):
        program = f"import numpy\npcm = numpy.zeros(16000, 'int16')\n{block}"
        subprocess.run([sys.executable, "-c", program], cwd=user, check=True)


@pytest.mark.parametrize("page", ["latency.md", "accuracy.md", "reliability.md"])
def test_pages_say_what_their_records_say(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/benchmarks.md make the pages that are there, to the letter."""
    docs, made = ROOT / "docs", tmp_path / "docs"
    (command,) = (line for line in commands(docs / "benchmarks.md") if f"docs/{page}" in line)
    pictures = {file.name for file in docs.glob(f"{Path(page).stem}-*.png")}
    made.mkdir()
    for file in docs.iterdir():
        if file.name != page and file.name not in pictures:
            (made / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert (made / page).read_text() == (docs / page).read_text()
    assert {file.name for file in made.glob(f"{Path(page).stem}-*.png")} == pictures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_are_read(page: Path) -> None:
    for block in blocks(page, "toml"):
        parse_recipe(tomllib.loads(block), page.name)


@pytest.mark.parametrize("page", [*PAGES, *RECIPES.glob("*.toml")], ids=lambda page: page.name)
def test_recipes_in_running_text_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"\n(# )?", " ", text)
    for code in re.findall(r"`(earmark [^`]*\.toml[^`]*)`", text):
        words = split(code)[1:]
        command_line(cli.commands()).parse_args(words)
        for recipe in (word for word in words if word.endswith(".toml")):
            assert (ROOT / recipe).is_file(), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, section = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.exists(), target
        if section:
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert section in [anchor(title) for title in titles], target


def anchor(title: str) -> str:
    """The name that a heading gets on the usual hosts."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert not re.findall(r"@[A-Z]+@|TODO|TBD|FIXME", page.read_text())


def test_the_public_names_exist() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `(earmark[\w.]+)` \|", page, re.MULTILINE)
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(import_module(module), attribute).__doc__, name
    ours = {name.rpartition(".")[2] for name in names if name.count(".") == 2}
    assert ours == set(runtime.__all__) - {"EarmarkError"}
