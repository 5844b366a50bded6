"""What teachers take from the folder beside their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from earmark.train.teachers import registry
from earmark.train.teachers.teacher import Teacher

transformers: Any = pytest.importorskip("transformers")

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
# Of Speech Commands' log mel energies, by which the published AST of that data set was made.
MEAN, DEVIATION = -6.845978, 5.5654526


@pytest.fixture
def ast(tmp_path: Path) -> Path:
    """Weights in half precision, and settings of the input."""
    config = transformers.ASTConfig(max_length=128, **SHAPE)
    transformers.ASTModel(config).half().save_pretrained(tmp_path)
    extractor = transformers.ASTFeatureExtractor(mean=MEAN, std=DEVIATION, max_length=128)
    extractor.save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def test_ast_normalises_as_its_folder_says(ast: Path) -> None:
    torch.manual_seed(0)
    wav = 0.05 * torch.randn(1, 16000)
    backbone: Any = registry.load("ast", str(ast)).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(ast)
    expected = extractor(list(wav.numpy()), sampling_rate=16000, return_tensors="pt").input_values
    got = backbone.features(wav)
    torch.testing.assert_close(got, expected[:, : got.shape[1]], atol=1e-4, rtol=0)
    pooled = backbone.model(expected).pooler_output
    torch.testing.assert_close(backbone(wav), pooled, atol=1e-4, rtol=1e-4)
    again: Any = registry.rebuild(backbone.config)
    again.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(again.eval()(wav), backbone(wav))


def test_weights_in_half_precision_are_heard_and_trained_in_float32(ast: Path) -> None:
    teacher = Teacher(registry.load("ast", str(ast)), 3)
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    teacher(torch.zeros(1, 16000)).logits.sum().backward()
