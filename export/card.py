"""The model card: what the manifest says, in Markdown for people (Hugging Face conventions)."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..runtime.errors import EarmarkError
from ..runtime.files import read_text
from ..runtime.manifest import Manifest
from ..train.metrics import HEADLINES, headline

_BEGINNING = re.compile(r"---\n(license: .*\n)?library_name: onnx\n")
_MADE = "Made with Earmark."


def model_card(manifest: Manifest, file: str, sizes: dict[str, int]) -> str:
    """The card of a model.

    Args:
        manifest: of the int8 file, metrics included.
        file: name of the int8 file.
        sizes: bytes of the ``int8`` and ``float32`` files.
    """
    parts = [
        _front_matter(manifest),
        f"# {manifest.name}\n",
        f"{_kind(manifest)} for {_words(manifest)}, in one ONNX file: raw 16 kHz audio and a cache "
        f"in, logits and the next cache out. {_MADE}\n",
        "## Use\n\n"
        f"```sh\nearmark detect --model {file} recording.wav\n"
        f"earmark listen --model {file}\n```\n\n"
        "```python\nfrom earmark.runtime import Engine\n\n"
        f'stream = Engine("{file}").stream()\n'
        "for detection in stream.push(pcm):  # int16 or float32 at 16 kHz, any length\n"
        "    print(detection.keyword, detection.time, detection.score)\n```\n",
        _facts(manifest, sizes),
        _accuracy(manifest),
        _training(manifest),
        _quantization(manifest),
        _licences(manifest),
        _limits(manifest),
    ]
    return "\n".join(part for part in parts if part)


def check_card(path: Path) -> None:
    """Refuse to write a card over what is none.

    Raises:
        EarmarkError: there is a file already that does not begin as cards do.
    """
    text = ""
    with suppress(EarmarkError):
        text = read_text(path)
    if path.is_file() and not (_BEGINNING.match(text) and _MADE in text):
        raise EarmarkError(
            f"{path}: exists already and is no card of Earmark's, which goes beside the model: "
            "name another model with -o, or move it away"
        )


def _kind(manifest: Manifest) -> str:
    if manifest.activation == "sigmoid":
        return "Tagger (any number of labels at a time)"
    return "Keyword spotter" if len(manifest.keywords) < len(manifest.labels) else "Classifier"


def _words(manifest: Manifest) -> str:
    return ", ".join(f"*{keyword}*" for keyword in manifest.keywords)


def _front_matter(manifest: Manifest) -> str:
    tag, metric = "keyword-spotting", "accuracy"
    if manifest.activation == "sigmoid":
        tag, metric = "audio-tagging", "mean_average_precision"
    elif len(manifest.keywords) == len(manifest.labels):
        tag = "audio-classification"
    lines = [
        "---",
        *([f"license: {manifest.licence.lower()}"] if manifest.licence else []),
        "library_name: onnx",
        "pipeline_tag: audio-classification",
        f"tags: [{tag}, streaming, int8, mfcc]",
        f"metrics: [{metric}]",
        "---\n",
    ]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def _facts(manifest: Manifest, sizes: dict[str, int]) -> str:
    g = manifest.geometry
    ms = 1000 / g.sample_rate
    rows: list[tuple[object, ...]] = [
        ("Labels", ", ".join(f"`{label}`" for label in manifest.labels)),
        ("Posteriors", f"{manifest.activation} of the logits"),
        ("Parameters", f"{manifest.parameters:,}"),
        ("File", f"{sizes['int8'] / 1000:.0f} kB int8, {sizes['float32'] / 1000:.0f} kB float32"),
        ("Features", _features(manifest.features)),
        ("Chunk", f"{g.chunk} samples ({g.chunk * ms:g} ms)"),
        ("Step between logits", f"{g.step} samples ({g.step * ms:g} ms)"),
        ("Receptive field", f"{g.receptive_field * ms / 1000:.2f} s"),
        ("Cache", f"{g.cache} float32 numbers a stream; zeros start a stream"),
        (
            "Decision",
            f"mean posterior over {manifest.decision.smoothing:g} s at a threshold of "
            + ", ".join(sorted({f"{t:g}" for t in manifest.decision.thresholds.values()}))
            + f", once in {manifest.decision.refractory:g} s",
        ),
        ("Teacher", manifest.teacher or "none"),
    ]
    return "## Facts\n\n" + _table(("", ""), rows)


def _features(features: dict[str, Any]) -> str:
    rate = features["sample_rate"]
    return (
        f"{features['coefficients']} MFCC of {features['mels']} mel bands, "
        f"{features['f_min']:g} to {features['f_max']:g} Hz, "
        f"{1000 * features['window'] / rate:g} ms window, {1000 * features['hop'] / rate:g} ms hop"
    )


def _accuracy(manifest: Manifest) -> str:
    m = manifest.metrics
    name = headline(m["int8_streaming"])
    rows: list[tuple[object, ...]] = [
        ("torch, whole clips", _percent(m["torch_whole_clip"][name]), "", ""),
    ]
    for form in ("float32", "int8"):
        measured = m[f"{form}_streaming"]
        interval = measured.get("top1_interval")
        shown = f"{_percent(interval[0])} to {_percent(interval[1])}" if interval else ""
        figure, f1 = _percent(measured[name]), f"{measured['macro_f1']:.4f}"
        rows.append((f"{form}, streaming", figure, shown, f1))
    # The figure of each class that the headline is made of.
    each = "average_precision" if name == "map" else "recall"
    figures = m["int8_streaming"][each]
    support = m["int8_streaming"]["support"]
    text = (
        f"## Accuracy\n\nOn the {m['split']} split ({m['int8_streaming']['clips']} clips, "
        f"{m['int8_streaming']['speakers']} speakers); a clip's label is read at the "
        f"{m['protocol']}. The interval is a 95 % bootstrap over speakers.\n\n"
        + _table(("form", HEADLINES[name], "95 % interval", "macro F1"), rows)
        + f"\n{each.replace('_', ' ').capitalize()} of the int8 file by class:\n\n"
        + _table(
            ("class", "clips", each.replace("_", " ")),
            [(f"`{k}`", support[k], _percent(v)) for k, v in figures.items() if v is not None],
        )
    )
    if "seeds" in m:
        spread = m["seeds"]
        values = spread[f"int8_streaming_{name}"]
        listed = ", ".join(f"seed {seed} {_percent(value)}" for seed, value in values.items())
        text += (
            f"\nOver {len(values)} seeds, int8, streaming: "
            f"{_percent(spread['mean'])} ± {_percent(spread['standard_deviation'])} (mean and "
            f"standard deviation; {listed}). This file is seed {manifest.training['seed']}.\n"
        )
    return text


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _training(manifest: Manifest) -> str:
    t = manifest.training
    counts = [
        (f"`{label}`", *(split.get(label, 0) for split in t["clips"].values()))
        for label in manifest.labels
    ]
    text = "## Training\n\n"
    commands = "\n".join(filter(None, (t["command"], t["export_command"])))
    if commands:
        text += f"```sh\n{commands}\n```\n\n"
    return (
        text
        + _table(("class", *t["clips"]), counts)
        + f"\nData fingerprint `{t['fingerprint'][:16]}`, checkpoint "
        + f"`{(manifest.checkpoint_sha256 or '')[:16]}`"
        + (f", revision `{_short(t['git_revision'])}`" if t["git_revision"] else "")
        + f"; {', '.join(f'{k} {v}' for k, v in t['versions'].items())}.\n"
    )


def _short(revision: str) -> str:
    number, dirty, _ = revision.partition("-dirty")
    return number[:12] + dirty


def _quantization(manifest: Manifest) -> str:
    q = manifest.quantization
    p = q["parity"]
    ops = p["operators"]
    return (
        f"## Quantization\n\n{q['method'].capitalize()}; ranges are the {q['range']} over "
        f"{len(q['calibration'])} training clips, listed in the manifest. onnxruntime runs "
        f"{ops['int8']} of {ops['int8'] + ops['float32']} convolutions in int8.\n\n"
        + _table(
            ("parity on real clips", "largest difference"),
            [
                (
                    "float32 file, streamed, against torch (logits)",
                    f"{p['float32_against_torch']:.1e}",
                ),
                (
                    "int8 file, streamed against whole (logits)",
                    f"{p['int8_streaming_against_whole']:.1e}",
                ),
                ("int8 against float32 (logits)", f"{p['int8_against_float32_logits']:.2f}"),
                ("int8 against float32 (share of labels)", _percent(p["int8_labels_changed"])),
            ],
        )
    )


def _licences(manifest: Manifest) -> str:
    rows: list[tuple[object, ...]] = [
        (f"[{s.name}]({s.url})" if s.url else s.name, s.role, s.licence, s.attribution)
        for s in manifest.sources
    ]
    own = f"The model: {manifest.licence}. " if manifest.licence else ""
    return f"## Licences\n\n{own}What shaped it:\n\n" + _table(
        ("work", "as", "licence", "attribution"), rows
    )


def _limits(manifest: Manifest) -> str:
    recipe = json.dumps(manifest.training["recipe"], indent=1, ensure_ascii=False)
    return (
        "## Limits\n\n"
        "The accuracy above is of isolated clips. False accepts per hour on your own audio depend "
        "on the room and on what is said in it: measure them before relying on the thresholds, and "
        "raise a threshold with `--threshold WORD=0.9`.\n\n"
        "Everything in this card is also in the file: `earmark info --json`.\n\n"
        f"<details><summary>Recipe</summary>\n\n```json\n{recipe}\n```\n\n</details>\n"
    )
