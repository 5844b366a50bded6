"""Teachers: one interface over all networks, and runs that train and read back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from earmark.runtime.errors import EarmarkError
from earmark.train.data.dataset import Split
from earmark.train.fit import fit, train
from earmark.train.lightning_import import pl
from earmark.train.mfcc import MfccSettings
from earmark.train.recipe import Recipe, parse_recipe, recipe_toml
from earmark.train.run import read_history
from earmark.train.teach import TeacherLesson, teach, warm_cosine
from earmark.train.teachers import registry, speech_embedding_file
from earmark.train.teachers.bcresnet import BcResNet
from earmark.train.teachers.credits import credit
from earmark.train.teachers.run import load_teacher
from earmark.train.teachers.settings import TeacherSettings
from earmark.train.teachers.teacher import Backbone, Teacher, parameter_groups
from tiny_corpus import tiny_recipe, write_corpus

BEATS = Path(__file__).parent / "fixtures" / "beats" / "tiny_pretrained.pt"
SMALL = {
    "cnn2d": TeacherSettings(kind="cnn2d", width=4),
    "convtransformer": TeacherSettings(kind="convtransformer", width=32, depth=1),
    "bcresnet": TeacherSettings(kind="bcresnet", width=8),
    "beats": TeacherSettings(kind="beats", weights=str(BEATS)),
    "speech_embedding": TeacherSettings(kind="speech_embedding", random=True),
}


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def hub_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny networks with random weights, saved as transformers saves its own."""
    pytest.importorskip("earmark.train.torchaudio_import")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hub")
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    wavlm = {
        "conv_dim": (8,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    whisper: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    torch.manual_seed(0)
    models = {
        "ast": transformers.ASTModel(transformers.ASTConfig(max_length=128, **shape)),
        "whisper": transformers.WhisperModel(transformers.WhisperConfig(**whisper)),
        "wavlm": transformers.WavLMModel(transformers.WavLMConfig(**shape, **wavlm)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def small(kind: str, hub_folders: dict[str, str]) -> Backbone:
    settings = SMALL.get(kind) or TeacherSettings(kind=kind, weights=hub_folders[kind])  # pyright: ignore[reportArgumentType]
    return registry.build(settings, MfccSettings(), seed=0)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_teacher_has_the_one_interface(kind: str, hub_folders: dict[str, str]) -> None:
    teacher = Teacher(small(kind, hub_folders), 5)
    wav = noise(3, 16000)
    embedding, logits = teacher.eval()(wav)
    assert embedding.shape == (3, teacher.backbone.width) and logits.shape == (3, 5)
    alone = teacher(wav[1:2])
    torch.testing.assert_close(alone.logits, logits[1:2], atol=1e-4, rtol=1e-4)
    # What a run keeps is enough to make the same network again.
    config = json.loads(json.dumps(teacher.backbone.config, default=str))
    again = Teacher(registry.rebuild(config), 5)
    again.load_state_dict(teacher.state_dict())
    torch.testing.assert_close(again.eval()(wav).logits, logits)
    logits.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in teacher.backbone.parameters())


@pytest.mark.parametrize("kind", registry.KINDS)
def test_learning_rates_fall_from_the_head_to_the_audio(
    kind: str, hub_folders: dict[str, str]
) -> None:
    teacher = Teacher(small(kind, hub_folders), 5)
    groups = parameter_groups(teacher, 1.0, backbone_rate=0.5, layer_decay=0.5)
    every = [p for group in groups for p in group["params"]]
    assert len(every) == len(set(every)) == len(list(teacher.parameters()))
    assert groups[0]["lr"] == 1.0
    last = next(reversed([s for s in teacher.backbone.stages() if list(s.parameters())]))
    rate = {p: group["lr"] for group in groups for p in group["params"]}
    # A table that all layers share learns as the first of them does.
    assert max(rate[p] for p in last.parameters()) == 0.5
    assert min(group["lr"] for group in groups) < 0.26


def test_random_weights_follow_from_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    a, b, c = (registry.load("cnn2d", random=True, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    first, same, other = (model.state_dict()["blocks.0.0.weight"] for model in (a, b, c))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_whats_asked_for_wrongly_is_named(tmp_path: Path, hub_folders: dict[str, str]) -> None:
    with pytest.raises(EarmarkError, match="'nosuch': expected one of"):
        registry.load("nosuch")
    with pytest.raises(EarmarkError, match="'beats': name its weights, or ask for random"):
        registry.load("beats")
    with pytest.raises(EarmarkError, match="has no pre-trained weights"):
        registry.load("cnn2d", "x.pt")
    with pytest.raises(EarmarkError, match="no model that transformers can read") as error:
        registry.load("ast", str(tmp_path))
    assert "\n" not in str(error.value)
    with pytest.raises(EarmarkError, match="of type wavlm, not whisper"):
        registry.load("whisper", hub_folders["wavlm"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "fits", "unfit", "expected"),
    [
        ("ast", 20_879, 20_880, r"1\.305 s are too long for AST: set data\.clip to at most 1\.3$"),
        ("whisper", 479_680, 480_000, r"30 s .* Whisper: set data\.clip to at most 29\.98$"),
        ("beats", 2800, 2799, r"short for BEATs: set data\.clip to at least 0\.175$"),
    ],
)
def test_clips_of_a_length_that_a_teacher_does_not_hear_are_refused(
    kind: str, fits: int, unfit: int, expected: str, hub_folders: dict[str, str]
) -> None:
    backbone = small(kind, hub_folders).eval()
    assert backbone(noise(1, fits)).isfinite().all()
    with pytest.raises(EarmarkError, match=expected):
        backbone(noise(1, unfit))


@torch.no_grad()
def test_inputs_of_ast_equal_those_of_its_extractor(hub_folders: dict[str, str]) -> None:
    import transformers

    backbone = small("ast", hub_folders).eval()
    wav = noise(2, 16000)
    extractor = transformers.ASTFeatureExtractor(max_length=128)
    expected = extractor(list(wav.numpy()), sampling_rate=16000, return_tensors="pt").input_values
    got = backbone.features(wav)
    torch.testing.assert_close(got, expected[:, : got.shape[1]], atol=1e-4, rtol=0)
    pooled = backbone.model(expected).pooler_output  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(backbone(wav), pooled, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_inputs_of_whisper_equal_those_of_its_extractor(hub_folders: dict[str, str]) -> None:
    import transformers

    backbone = small("whisper", hub_folders).eval()
    time = torch.arange(16000) / 16000
    wav = torch.stack([noise(16000), 0.3 * torch.sin(2000 * time), torch.zeros(16000)])
    extractor = transformers.WhisperFeatureExtractor()
    expected = extractor(list(wav.numpy()), sampling_rate=16000, return_tensors="pt").input_features
    got = backbone.features(wav).transpose(1, 2)
    torch.testing.assert_close(got, expected[..., : got.shape[2]], atol=1e-3, rtol=0)
    tokens = backbone.model(expected).last_hidden_state  # pyright: ignore[reportCallIssue]
    frames = got.shape[2]
    torch.testing.assert_close(
        backbone(wav), tokens[:, : -(-frames // 2)].mean(1), atol=1e-3, rtol=1e-3
    )


def test_beats_is_the_mean_of_its_tokens() -> None:
    backbone = registry.load("beats", str(BEATS))
    wav = noise(2, 16000)
    expected = backbone.model.extract_features(wav).mean(1)  # pyright: ignore
    torch.testing.assert_close(backbone(wav), expected)


@pytest.mark.parametrize(
    ("width", "parameters"),
    [(8, 9232), (12, 17_154), (16, 27_284), (24, 54_168), (48, 187_812), (64, 321_068)],
)
def test_the_reference_has_the_published_sizes(width: int, parameters: int) -> None:
    """9.2, 17.2, 27.3, 54.2, 188 and 321 k of 12 classes: tables 2 and 3 of the paper."""
    model = Teacher(BcResNet(MfccSettings(), width), 12)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("teachers")
    recipe = tiny_recipe(write_corpus(folder / "corpus"), learning_rate=3e-3)
    return dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, cache=str(folder / "cache"))
    )


@pytest.mark.parametrize(
    ("settings", "name", "licence"),
    [
        (TeacherSettings(kind="beats", weights="x/BEATs_iter3.pt"), "BEATs_iter3", "have none"),
        (TeacherSettings(kind="beats", weights="mine.pt"), "BEATs", "have none"),
        (
            TeacherSettings(kind="speech_embedding", weights="x.onnx"),
            speech_embedding_file.SOURCE.name,
            "CC BY-NC-SA 4.0",
        ),
        (TeacherSettings(kind="ast", weights="x"), "AST", "BSD-3-Clause"),
        (TeacherSettings(kind="whisper", weights="x"), "Whisper", "Apache-2.0"),
        (TeacherSettings(kind="wavlm", weights="x"), "WavLM", "have none"),
    ],
)
def test_released_weights_are_credited_to_their_makers(
    settings: TeacherSettings, name: str, licence: str
) -> None:
    source = credit(settings)
    assert source and (source.name, source.role) == (name, "teacher")
    assert licence in source.licence


@pytest.mark.parametrize(
    "settings",
    [
        TeacherSettings(kind="beats", random=True),
        TeacherSettings(kind="wavlm", random=True),
        TeacherSettings(kind="cnn2d"),
    ],
)
def test_random_weights_are_credited_to_nobody(settings: TeacherSettings) -> None:
    assert credit(settings) is None


@pytest.mark.parametrize("kind", SMALL)
def test_teachers_learn(recipe: Recipe, tmp_path: Path, kind: str) -> None:
    settings = SMALL[kind]
    if kind == "bcresnet":
        train = dataclasses.replace(recipe.train, optimizer="sgd", learning_rate=0.1)
        recipe = dataclasses.replace(recipe, train=train)
    if kind == "beats":
        settings = dataclasses.replace(settings, head_epochs=2, backbone_rate=0.1, layer_decay=0.7)
    run = teach(dataclasses.replace(recipe, teacher=settings), tmp_path / "run", "command")
    history = read_history(run)
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    loaded = load_teacher(run)
    assert loaded.title == f"tones ({kind})" and loaded.info.command == "command"
    made, data = loaded.sources
    assert (made.role, data.role) == ("teacher", "training data")
    assert made.name == ("BEATs" if kind == "beats" else loaded.title)
    measured = json.loads((run / "evaluation.json").read_text())
    assert measured["top1"] == pytest.approx(history[-1]["accuracy"], abs=1e-4)
    assert measured["parameters"] == sum(p.numel() for p in loaded.teacher.parameters())
    before = (run / "teacher.pt").stat().st_mtime_ns
    teach(dataclasses.replace(recipe, teacher=settings), run)
    assert (run / "teacher.pt").stat().st_mtime_ns == before


def test_it_is_measured_where_it_was_trained_and_by_one_process(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = dataclasses.replace(recipe.train, epochs=1, steps_per_epoch=1)
    wanted = dataclasses.replace(recipe, teacher=SMALL["cnn2d"], train=once)
    done: list[str] = []

    def measured(teacher: Teacher, split: Split) -> np.ndarray:
        done.append("measured")
        return np.eye(len(split.labels), dtype=np.float32)[split.label]

    def moved(teacher: Teacher, device: object) -> Teacher:
        done.append(str(device))
        return teacher

    def fitted(trainer: pl.Trainer, *rest: Any) -> None:
        fit(trainer, *rest)
        # A stand-in for a GPU.
        monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("meta"))

    monkeypatch.setattr("earmark.train.teach.teacher_posteriors", measured)
    monkeypatch.setattr(Teacher, "to", moved)
    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "is_global_zero", False)
        teach(wanted, tmp_path / "second")
    assert not done
    monkeypatch.setattr("earmark.train.teach.fit", fitted)
    teach(wanted, tmp_path / "first")
    assert done == ["meta", "measured", "cpu"]


def test_the_head_learns_alone_first(recipe: Recipe, tmp_path: Path) -> None:
    frozen = dataclasses.replace(SMALL["beats"], head_epochs=4)
    run = teach(dataclasses.replace(recipe, teacher=frozen), tmp_path / "run")
    loaded = load_teacher(run).teacher
    start = registry.load("beats", str(BEATS)).state_dict()
    assert all(
        torch.equal(value, start[key]) for key, value in loaded.backbone.state_dict().items()
    )
    history = read_history(run)
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_frozen_network_keeps_its_batch_norms_and_drops_nothing_out(
    recipe: Recipe, tmp_path: Path
) -> None:
    once = dataclasses.replace(recipe.train, epochs=1, steps_per_epoch=2)

    def taught(dropout: float, head_epochs: int) -> tuple[bool, float]:
        """Whether the network is as it was made, and the loss."""
        settings = dataclasses.replace(SMALL["cnn2d"], dropout=dropout, head_epochs=head_epochs)
        wanted = dataclasses.replace(recipe, teacher=settings, train=once)
        run = teach(wanted, tmp_path / f"{dropout}{head_epochs}")
        start = registry.build(settings, recipe.features, recipe.seed).state_dict()
        found = load_teacher(run).teacher.backbone.state_dict()
        same = all(torch.equal(value, start[key]) for key, value in found.items())
        return same, read_history(run)[0]["loss"]

    dropping, frozen = taught(0.5, head_epochs=1), taught(0.0, head_epochs=1)
    assert dropping == frozen and frozen[0]
    dropping, learning = taught(0.5, head_epochs=0), taught(0.0, head_epochs=0)
    assert dropping[1] != learning[1] and not learning[0]


def test_a_teacher_goes_on_where_it_was(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dropout and mixup draw from torch's generator is what they would have drawn."""
    wanted = dataclasses.replace(
        recipe,
        teacher=SMALL["convtransformer"],
        augment=dataclasses.replace(recipe.augment, mixup=0.2),
        train=dataclasses.replace(recipe.train, epochs=3, steps_per_epoch=2),
    )
    whole = teach(wanted, tmp_path / "whole")

    def stop(lesson: TeacherLesson) -> None:
        if lesson.current_epoch == 1:
            raise RuntimeError("power cut")

    run = tmp_path / "cut"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(TeacherLesson, "on_train_epoch_start", stop)
        teach(wanted, run)
    assert [line["epoch"] for line in read_history(run)] == [1]
    for _ in range(2):
        assert load_teacher(teach(wanted, run)).digest == load_teacher(whole).digest
        assert read_history(run) == read_history(whole)
        # As if it had been killed before its last step of all.
        (run / "teacher.pt").unlink()


def test_answers_kept_are_those_of_the_shape_too(recipe: Recipe, tmp_path: Path) -> None:
    """A network of the same weights that scales its features otherwise answers otherwise."""
    run = teach(
        dataclasses.replace(
            recipe,
            teacher=SMALL["convtransformer"],
            train=dataclasses.replace(recipe.train, epochs=1, steps_per_epoch=1),
        ),
        tmp_path / "run",
    )
    before = load_teacher(run).digest
    shape = json.loads((run / "teacher.json").read_text())
    shape["features"]["floor"] *= 2
    (run / "teacher.json").write_text(json.dumps(shape))
    assert load_teacher(run).digest != before


def test_a_recipe_is_a_teachers_or_a_students(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="field teacher: is missing"):
        teach(recipe, tmp_path / "run")
    with pytest.raises(EarmarkError, match="field teacher: is for earmark teach"):
        train(dataclasses.replace(recipe, teacher=SMALL["cnn2d"]), tmp_path / "run")
    text = recipe_toml(dataclasses.replace(recipe, teacher=SMALL["cnn2d"]))
    assert 'kind = "cnn2d"' in text and "distill" not in text


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ({"kind": "nosuch"}, "field teacher.kind"),
        ({"kind": "beats"}, "field teacher.weights: expected where beats is"),
        ({"kind": "cnn2d", "weights": "x"}, "field teacher.weights: expected none"),
        ({"kind": "cnn2d", "depth": 2}, "field teacher.depth: expected 0 but for"),
        ({"kind": "cnn2d", "random": True}, "field teacher.random: expected false for cnn2d"),
        ({"kind": "ast", "weights": "x", "width": 8}, "field teacher.width: expected 0 for ast"),
        ({"kind": "convtransformer", "width": 100}, "field teacher.width: expected a multiple"),
    ],
)
def test_wrong_settings_are_named(teacher: dict[str, Any], expected: str) -> None:
    with pytest.raises(EarmarkError, match=expected):
        parse_recipe({"name": "a", "keywords": ["yes"], "teacher": teacher}, "x")


def test_the_learning_rate_rises_and_falls() -> None:
    rates = np.array([warm_cosine(step, 100, 0.1) for step in range(101)])
    assert rates.argmax() == 9 and rates.max() == 1 and rates[0] == 0.1
    assert (np.diff(rates[10:]) <= 0).all() and rates[100] == pytest.approx(0, abs=1e-9)


def test_no_step_follows_a_gradient_longer_than_five(recipe: Recipe, tmp_path: Path) -> None:
    """The first one of this network is longer."""

    def weights(rate: float) -> torch.Tensor:
        settings = dataclasses.replace(
            recipe.train,
            optimizer="sgd",
            learning_rate=rate,
            weight_decay=0.0,
            epochs=1,
            steps_per_epoch=1,
            batch=8,
        )
        wanted = dataclasses.replace(recipe, teacher=SMALL["cnn2d"], train=settings)
        run = teach(wanted, tmp_path / f"{rate}")
        return torch.cat([p.flatten() for p in load_teacher(run).teacher.parameters()])

    moved = weights(1.0) - weights(1e-30)
    assert moved.norm().item() == pytest.approx(5, rel=1e-3)
