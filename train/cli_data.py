"""The verbs that make and look at data: ``synth``, ``download``, ``transcribe`` and ``corpus``."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.command import Command
from ..runtime.errors import EarmarkError

if TYPE_CHECKING:
    from .data.clip import Clip


def _configure_synth(parser: ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="WORD", help="keyword; quote one of two words")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="corpus folder"
    )
    parser.add_argument(
        "--other",
        default="auto",
        metavar="WORDS",
        help="words that are not keywords, separated by commas (default: auto, chosen by sound)",
    )
    parser.add_argument("--clips", type=int, default=400, help="per keyword (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of voices, places and levels (default: 0)"
    )
    parser.add_argument(
        "--language", default="en", help="language code of eSpeak NG (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="least length of a clip (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per processor)")


def _run_synth(arguments: Namespace) -> int:
    from .collect.synth import synthesize

    if arguments.workers is not None and arguments.workers < 1:
        raise EarmarkError(f"--workers {arguments.workers}: expected at least 1")
    other = arguments.other
    written = synthesize(
        arguments.words,
        arguments.output,
        other=other if other == "auto" else [word.strip() for word in other.split(",")],
        clips=arguments.clips,
        seed=arguments.seed,
        language=arguments.language,
        clip_seconds=arguments.seconds,
        workers=arguments.workers,
    )
    report = {"type": "synth", "folder": str(arguments.output), "keywords": arguments.words}
    print(json.dumps(report | asdict(written), ensure_ascii=False))
    return 0


def _configure_download(parser: ArgumentParser) -> None:
    from .collect.public import DATA_SETS

    parser.add_argument(
        "name", choices=[*DATA_SETS, "beats", "speech-embedding"], help="what to fetch"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder (default: data/ and the name)"
    )
    weights = parser.add_argument_group(
        "weights of teachers", "Only third parties mirror those of BEATs."
    )
    weights.add_argument(
        "--checkpoint", metavar="NAME", help="which of beats (default: BEATs_iter3)"
    )
    weights.add_argument("--url", help="where to fetch them, in place of the known addresses")


def _run_download(arguments: Namespace) -> int:
    output = arguments.output or Path("data", arguments.name)
    report: dict[str, object] = {"type": "download"}
    if arguments.checkpoint is not None and arguments.name != "beats":
        raise EarmarkError("--checkpoint goes with beats: leave it out")
    if arguments.name == "beats":
        from .teachers import beats_checkpoints

        name = arguments.checkpoint or beats_checkpoints.DEFAULT
        file = beats_checkpoints.download_beats(output, name, arguments.url)
        report |= {"file": str(file), "source": asdict(beats_checkpoints.source(name))}
    elif arguments.name == "speech-embedding":
        from .teachers import speech_embedding_file

        file = speech_embedding_file.download_speech_embedding(output, arguments.url)
        report |= {"file": str(file), "source": asdict(speech_embedding_file.SOURCE)}
    else:
        from .collect import public

        if arguments.url is not None:
            raise EarmarkError("--url goes with weights of teachers: leave it out")
        folder = public.download_data_set(arguments.name, output)
        source = public.DATA_SETS[arguments.name].source
        report |= {"folder": str(folder), "source": asdict(source)}
    print(json.dumps(report, ensure_ascii=False))
    return 0


def _configure_transcribe(parser: ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="free speech")
    parser.add_argument("--workers", type=int, help="processes (default: one per processor)")


def _run_transcribe(arguments: Namespace) -> int:
    from .collect.transcribe import transcribe

    if arguments.workers is not None and arguments.workers < 1:
        raise EarmarkError(f"--workers {arguments.workers}: expected at least 1")
    unreadable = 0
    for folder in arguments.folders:
        done = transcribe(folder, arguments.workers)
        unreadable += done.unreadable
        report = {"type": "transcribe", "folder": str(folder)} | asdict(done)
        print(json.dumps(report), flush=True)
    return 1 if unreadable else 0


def _configure_corpus(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folder of word folders, CSV table, or tar files (as 'words/*.tar'), read as one",
    )
    parser.add_argument(
        "--keywords", metavar="WORDS", help="check that these have clips enough (commas between)"
    )
    parser.add_argument(
        "--at-least", type=int, metavar="N", help="clips of a keyword in each split (default: 1)"
    )
    parser.add_argument("--decode", action="store_true", help="also read every clip")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument(
        "--shards",
        type=Path,
        metavar="OUT",
        help="write it as WebDataset shards, for training by several processes of a part each",
    )
    parser.add_argument(
        "--shard-size", type=float, metavar="MB", help="audio in a shard (default: 256)"
    )


def _size(clip: "Clip") -> int:
    from .data.roots import file_size

    return clip.member.size if clip.member else file_size(clip.path)


def _run_corpus(arguments: Namespace) -> int:
    from ..runtime.layout import LISTS, SPLITS
    from .data.corpus import scan
    from .data.roots import some_names

    if arguments.at_least is not None and arguments.keywords is None:
        raise EarmarkError("--at-least goes with --keywords: leave it out")
    corpus = scan(*arguments.folders)
    # Decoding reports these as it does all that cannot be read.
    empty = [] if arguments.decode else [str(c.path) for c in corpus.clips if _size(c) == 0]
    if empty:
        print(f"{len(empty)} files are empty: {some_names(empty)}", file=sys.stderr)
    if arguments.keywords is not None:
        keywords = [word.strip() for word in arguments.keywords.split(",")]
        least = 1 if arguments.at_least is None else arguments.at_least
        corpus.require(keywords, at_least=least)
    skipped = len(empty)
    shards: dict[str, int] | None = None
    if arguments.shards:
        from .data.shard_writer import SHARD_MB, write_shards

        size = SHARD_MB if arguments.shard_size is None else arguments.shard_size
        shards = write_shards(corpus, arguments.shards, size)
    elif arguments.shard_size is not None:
        raise EarmarkError("--shard-size goes with --shards: leave it out")
    if arguments.decode:
        from .data.decoded import unreadable

        skipped = unreadable([clip.recording for clip in corpus.clips])
    counts = Counter((word, clip.split) for clip in corpus.clips for word in clip.words)
    speakers = {s: len({c.speaker for c in corpus.clips if c.split == s}) for s in SPLITS}
    if arguments.json:
        report = {
            "type": "corpus",
            "folders": [str(folder) for folder in arguments.folders],
            "words": {w: {s: counts[w, s] for s in SPLITS} for w in corpus.words},
            "speakers": speakers,
            "noise": len(corpus.noise),
            "sources": [asdict(source) for source in corpus.sources],
            "fingerprint": corpus.fingerprint,
            "unreadable": skipped if arguments.decode or empty else None,
            "shards": shards,
        }
        print(json.dumps(report, ensure_ascii=False))
    else:
        lines = [("", *SPLITS)]
        lines += [(word, *(str(counts[word, s]) for s in SPLITS)) for word in corpus.words]
        lines += [("speakers", *(str(speakers[s]) for s in SPLITS))]
        width = max(len(line[0]) for line in lines)
        for first, *rest in lines:
            print(f"{first:{width}}" + "".join(f"{x:>12}" for x in rest), file=sys.stderr)
        print(f"noise recordings: {len(corpus.noise)}", file=sys.stderr)
        lacking = [s for s in SPLITS if not any(clip.split == s for clip in corpus.clips)]
        if lacking:
            print(
                f"no clips for {' and '.join(lacking)}: add clips by more speakers or lists of "
                f"clips ({', '.join(LISTS.values())}), or name the folder in a recipe's data.own",
                file=sys.stderr,
            )
        if not arguments.decode:
            print("files were counted by name, not read: --decode reads them", file=sys.stderr)
        for source in corpus.sources:
            print(f"source: {source.name} ({source.licence})", file=sys.stderr)
        print(f"fingerprint: {corpus.fingerprint}", file=sys.stderr)
        for name, count in (shards or {}).items():
            print(f"shards: {arguments.shards}/{name}-*.tar ({count})", file=sys.stderr)
    return 1 if skipped else 0


synth = Command(
    summary="speak words in many voices: a synthetic corpus to start from",
    configure=_configure_synth,
    run=_run_synth,
    extra="synth",
    examples=(
        'earmark synth "hey computer" lights -o data/words',
        "earmark synth ja nein --language de --other jahr,neu,eins -o data/words",
    ),
)
download = Command(
    summary="fetch a public data set of words or free speech, or a teacher's weights",
    configure=_configure_download,
    run=_run_download,
    extra="train",
    examples=(
        "earmark download speech-commands -o data/speech-commands",
        "earmark download librispeech -o data/librispeech",
        "earmark download beats --checkpoint BEATs_iter3_plus_AS2M",
        "earmark download speech-embedding",
    ),
)
transcribe = Command(
    summary="write down the words of free speech, so that keywords in it are not taken for others",
    configure=_configure_transcribe,
    run=_run_transcribe,
    extra="transcribe",
    examples=("earmark transcribe data/talk",),
)
corpus = Command(
    summary="check recorded words and sum them up, or write them as WebDataset shards",
    configure=_configure_corpus,
    run=_run_corpus,
    extra="train",
    examples=(
        "earmark corpus data/words --keywords yes,no --at-least 50",
        "earmark corpus data/words --shards data/shards --shard-size 100",
    ),
)
