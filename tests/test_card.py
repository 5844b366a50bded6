"""What a model card tells those who search for models."""

from typing import Any

import pytest
import toy_model
from earmark.export.card import model_card
from earmark.runtime.manifest import Decision

MEASURED = {"macro_f1": 0.5, "support": {}, "clips": 1, "speakers": 1}
PARITY = {
    "float32_against_torch": 0.0,
    "int8_streaming_against_whole": 0.0,
    "int8_against_float32_logits": 0.0,
    "int8_labels_changed": 0.0,
    "operators": {"int8": 1, "float32": 0},
}
SOUNDS = ("low", "high", "hum", "hiss")


@pytest.mark.parametrize(
    ("changes", "tag", "metric"),
    [
        ({}, "keyword-spotting", "accuracy"),
        ({"labels": SOUNDS}, "audio-classification", "accuracy"),
        ({"activation": "sigmoid"}, "audio-tagging", "mean_average_precision"),
    ],
)
def test_tags_and_metrics_are_those_of_the_task(
    changes: dict[str, Any], tag: str, metric: str
) -> None:
    name, each = ("top1", "recall") if metric == "accuracy" else ("map", "average_precision")
    measured = MEASURED | {name: 0.5, each: {}}
    forms = dict.fromkeys(("int8_streaming", "float32_streaming", "torch_whole_clip"), measured)
    if "labels" in changes:
        changes = changes | {"decision": Decision(dict.fromkeys(SOUNDS, 0.7))}
    manifest = toy_model.manifest(
        features=dict.fromkeys(
            ("sample_rate", "coefficients", "mels", "f_min", "f_max", "window", "hop"), 1
        ),
        metrics={"split": "validation", "protocol": "", **forms},
        training={
            **{"clips": {}, "command": "", "export_command": "", "fingerprint": ""},
            **{"git_revision": "", "versions": {}, "recipe": {}},
        },
        quantization={"method": "", "range": "", "calibration": (), "parity": PARITY},
        **changes,
    )
    card = model_card(manifest, "toy.onnx", {"int8": 1, "float32": 1})
    front = card.split("---")[1].splitlines()
    assert f"tags: [{tag}, streaming, int8, mfcc]" in front
    assert f"metrics: [{metric}]" in front
