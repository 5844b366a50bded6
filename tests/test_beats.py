"""BEATs: parity with recorded outputs of the official code, checkpoints, fetching them."""

import hashlib
import json
import math
import pickle
import threading
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from earmark.runtime.errors import EarmarkError
from earmark.train import cli_data
from earmark.train.collect import fetch
from earmark.train.teachers import beats, beats_checkpoints
from earmark.train.teachers.beats import RELEASED, Beats
from earmark.train.teachers.beats_checkpoints import CHECKPOINTS, Checkpoint, download_beats
from earmark.train.torchaudio_import import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from test_archive import Server

FIXTURES = Path(__file__).parent / "fixtures" / "beats"
SETS = ("tiny_pretrained", "tiny_finetuned")
CASES = ("one_s", "readme_10000", "min_2800", "batch_padded", "batch_mask_allfalse", "seventeen_s")
TOLERANCE = 5e-5
TABLE = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


@pytest.fixture(scope="module")
def arrays() -> dict[str, dict[str, np.ndarray]]:
    loaded = {}
    for name in SETS:
        with np.load(FIXTURES / f"{name}.npz") as file:
            loaded[name] = dict(file)
    return loaded


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    return torch.load(FIXTURES / "tiny_finetuned.pt", weights_only=True)


def fixture(name: str) -> Beats:
    return beats.load(FIXTURES / f"{name}.pt")


def inputs(arrays: dict[str, np.ndarray], case: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    wav = torch.from_numpy(arrays[f"{case}/wav_i16"].astype(np.float32) / 32768)
    mask = arrays.get(f"{case}/padding_mask_in")
    return wav, None if mask is None else torch.from_numpy(mask)


def tiny(**changes: Any) -> beats.BeatsConfig:
    return replace(
        RELEASED,
        **{
            "encoder_layers": 2,
            "encoder_embed_dim": 32,
            "encoder_ffn_embed_dim": 48,
            "encoder_attention_heads": 4,
            "embed_dim": 16,
            **changes,
        },
    )


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SETS)
@torch.no_grad()
def test_equals_the_official_code(arrays, name: str, case: str) -> None:
    expected = {
        key.partition("/")[2]: value
        for key, value in arrays[name].items()
        if key.startswith(f"{case}/")
    }
    model = fixture(name)
    seen: dict[str, torch.Tensor] = {}
    hidden: list[torch.Tensor] = []

    def keep(part: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({part: output})

    model.layer_norm.register_forward_hook(keep("patch_ln"))
    model.post_extract_proj.register_forward_hook(keep("proj"))
    model.encoder.pos_conv.register_forward_hook(keep("pos_conv"))
    model.encoder.layer_norm.register_forward_hook(keep("enc_in"))
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))

    wav, mask = inputs(arrays[name], case)
    features = model.extract_features(wav, mask)
    torch.testing.assert_close(model(wav, mask), features, rtol=0, atol=0)
    seen["hidden"] = torch.stack(hidden[:2])
    seen["fbank"] = beats.fbank(wav)
    seen["out"] = features if model.predictor is None else model.logits(wav, mask).sigmoid()
    compared = set(expected) - {"wav_i16", "padding_mask_in", "padding_mask_out"}
    assert "out" in compared
    for part in compared:
        torch.testing.assert_close(
            seen[part], torch.from_numpy(expected[part]), rtol=0, atol=TOLERANCE, msg=part
        )
    if mask is not None:
        assert np.array_equal(model.token_mask(mask), expected["padding_mask_out"])


@pytest.mark.parametrize("name", SETS)
def test_position_bias_is_exact(arrays, name: str) -> None:
    bias = fixture(name).encoder.position_bias(48)
    assert np.array_equal(bias.detach(), arrays[name]["pos_bias_T48"])
    buckets = beats.position_buckets(torch.arange(-1200, 1201), 320, 800)
    assert np.array_equal(buckets, arrays[name]["bucket_-1200..1200"])


def hann(patch: pytest.MonkeyPatch) -> None:
    log_mel = beats.kaldi.log_mel
    patch.setattr(beats.kaldi, "log_mel", lambda wav, _: log_mel(wav, "hanning"))


def tanh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(beats.F, "gelu", partial(beats.F.gelu, approximate="tanh"))


def single_deviation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(beats, "_DEVIATION", beats._DEVIATION / 2)


def norm_of_channels(patch: pytest.MonkeyPatch) -> None:
    norm = partial(torch.linalg.vector_norm, dim=(1, 2), keepdim=True)
    patch.setattr(beats.PositionConv, "_norm", staticmethod(norm))


@pytest.mark.parametrize("mistake", [hann, tanh, single_deviation, norm_of_channels])
@torch.no_grad()
def test_parity_would_notice(arrays, monkeypatch, mistake) -> None:
    wav, mask = inputs(arrays["tiny_pretrained"], "batch_padded")
    model = fixture("tiny_pretrained")
    mistake(monkeypatch)
    out = model(wav, mask)
    error = np.abs(out.numpy() - arrays["tiny_pretrained"]["batch_padded/out"]).max()
    assert error > 5 * TOLERANCE


@pytest.mark.parametrize("change", [{"max_distance": 1280}, {"deep_norm": False}])
@torch.no_grad()
def test_settings_come_from_the_file(arrays, checkpoint, tmp_path: Path, change) -> None:
    wav, mask = inputs(arrays["tiny_finetuned"], "seventeen_s")
    checkpoint["cfg"] |= change
    changed = beats.load(save(checkpoint, tmp_path)).extract_features(wav, mask)
    features = fixture("tiny_finetuned").extract_features(wav, mask)
    assert (changed - features).abs().max() > 5 * TOLERANCE


def test_filterbank_of_a_batch_is_that_of_its_clips() -> None:
    wav = noise(3, 16000)
    one = torchaudio.compliance.kaldi.fbank
    alone = [
        one(clip[None] * 2**15, num_mel_bins=128, sample_frequency=16000, frame_length=25)
        for clip in wav
    ]
    expected = (torch.stack(alone) - 15.41663) / (2 * 6.55582)
    torch.testing.assert_close(beats.fbank(wav), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_half_precision_keeps_the_filterbank(arrays) -> None:
    model = fixture("tiny_finetuned")
    wav, mask = inputs(arrays["tiny_finetuned"], "batch_padded")
    exact = model.logits(wav, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(beats.fbank(wav.bfloat16().float()), beats.fbank(wav.bfloat16()))
        assert beats.fbank(wav).dtype == torch.float32
        reference = torch.from_numpy(arrays["tiny_finetuned"]["batch_padded/fbank"])
        assert (beats.fbank(wav) - reference).abs().max() < 5e-5
        assert (model.logits(wav, mask) - exact).abs().max() < 0.1
    assert model.bfloat16().logits(wav, mask).dtype == torch.bfloat16


def save(content: Any, folder: Path) -> Path:
    path = folder / "beats.pt"
    torch.save(content, path)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(EarmarkError) as caught:
        beats.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_what_a_checkpoint_gives(checkpoint, tmp_path: Path) -> None:
    model = fixture("tiny_finetuned")
    assert not model.training
    assert model.labels == tuple(checkpoint["label_dict"][i] for i in range(35))
    assert model.config.max_distance == 800
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    del checkpoint["label_dict"]
    assert beats.load(save(checkpoint, tmp_path)).labels == ()
    assert fixture("tiny_pretrained").labels == ()
    with pytest.raises(ValueError, match="no classes"):
        fixture("tiny_pretrained").logits(noise(1, 16000))


def test_the_table_is_stored_once_or_for_every_layer(checkpoint, tmp_path: Path) -> None:
    expected = fixture("tiny_finetuned").state_dict()
    tensors = checkpoint["model"]
    second = tensors.pop(TABLE.format(1))
    assert second is not None
    model = beats.load(save(checkpoint, tmp_path))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert sum("relative" in name for name, _ in model.named_parameters()) == 1
    tensors[TABLE.format(1)] = second + 1e-6
    assert "layers.1" in error_of(save(checkpoint, tmp_path))
    del tensors[TABLE.format(0)], tensors[TABLE.format(1)]
    assert f"has no tensor '{TABLE.format(0)}'" in error_of(save(checkpoint, tmp_path))


@pytest.mark.parametrize("key", ["max_distance", "deep_norm", "predictor_class", "dropout"])
def test_a_missing_setting_is_named(checkpoint, tmp_path: Path, key: str) -> None:
    del checkpoint["cfg"][key]
    assert repr(key) in error_of(save(checkpoint, tmp_path))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer_norm_first": True}, "layer_norm_first"),
        ({"relative_position_embedding": False}, "relative_position_embedding"),
        ({"activation_fn": "relu"}, "activation_fn"),
        ({"encoder_layers": 10**9}, "encoder_layers"),
        ({"encoder_layers": "two\nlayers"}, "encoder_layers"),
        ({"input_patch_size": -1}, "input_patch_size"),
        ({"encoder_attention_heads": 5}, "encoder_attention_heads"),
        ({"max_distance": 80}, "max_distance"),
        # Right by themselves, but not for the tensors.
        ({"encoder_layers": 3}, "has no tensor 'encoder.layers.2"),
        ({"encoder_layers": 1}, "has unknown tensor 'encoder.layers.1"),
        ({"gru_rel_pos": False}, "has unknown tensor 'encoder.layers.0.self_attn.grep_a'"),
        ({"conv_bias": True}, "has no tensor 'patch_embedding.bias'"),
        ({"num_buckets": 32}, "'encoder.layers.0.self_attn.relative_attention_bias.weight'"),
        ({"predictor_class": 36}, "label_dict"),
        ({"finetuned_model": False}, "has unknown tensor 'predictor"),
    ],
)
def test_settings_that_do_not_fit_are_named(checkpoint, tmp_path, change, named: str) -> None:
    checkpoint["cfg"] |= change
    assert named in error_of(save(checkpoint, tmp_path))


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        (torch.zeros(63), "shape [63], the settings say [64]"),
        (torch.zeros(64, dtype=torch.int64), "no floating-point tensor"),
        ("text", "no floating-point tensor"),
    ],
)
def test_wrong_tensors_are_named(checkpoint, tmp_path: Path, tensor, named: str) -> None:
    checkpoint["model"]["encoder.layer_norm.weight"] = tensor
    message = error_of(save(checkpoint, tmp_path))
    assert "'encoder.layer_norm.weight'" in message and named in message


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    assert "No such file" in error_of(path)
    whole = (FIXTURES / "tiny_finetuned.pt").read_bytes()
    for data, named in [
        (b"\n<!DOCTYPE html><html>403</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (b"", "not a PyTorch checkpoint"),
        (b"RIFF....WAVEfmt ", "not a PyTorch checkpoint"),
        (whole[:100_000], "not a PyTorch checkpoint"),
        (pickle.dumps(Path("x")), "would run code"),
    ]:
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert named in error_of(path)
    assert "cannot be read" in error_of(tmp_path)
    transformers = {"wavlm.encoder.layers.0.attention.k_proj.weight": torch.zeros(2, 2)}
    for content in (transformers, [1], torch.zeros(3), {"cfg": {}, "model": None}):
        assert "no 'cfg' and 'model'" in error_of(save(content, tmp_path))
    wavlm = {"cfg": {"encoder_layers": 12, "extractor_mode": "default"}, "model": transformers}
    assert "cfg has no 'encoder_embed_dim'" in error_of(save(wavlm, tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        tiny(finetuned_model=True, predictor_class=3, predictor_dropout=0.1),
        tiny(gru_rel_pos=False, deep_norm=False, conv_bias=True, conv_pos=5),
        tiny(embed_dim=32),
    ],
)
@torch.no_grad()
def test_own_weights_make_the_same_file(config, tmp_path: Path) -> None:
    model = beats.random(config, seed=1)
    file = {"cfg": asdict(config), "model": model.half().state_dict()}
    loaded = beats.load(save(file, tmp_path))
    assert loaded.config == config
    wav = noise(2, 4000)
    assert torch.equal(loaded(wav), model.float()(wav))


@pytest.mark.parametrize(
    ("changes", "parameters", "tensors"),
    [
        ({}, 90_311_792, 250),
        (
            {"finetuned_model": True, "predictor_class": 527, "predictor_dropout": 0.0},
            90_717_055,
            252,
        ),
    ],
)
def test_the_released_shape(changes, parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        model = Beats(replace(RELEASED, **changes))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors


def test_random_weights_are_those_of_the_seed() -> None:
    torch.manual_seed(3)
    following = torch.rand(3)
    torch.manual_seed(3)
    one, same, other = (beats.random(tiny(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), following)
    wav = noise(1, 4000)
    assert torch.equal(one(wav), same(wav))
    assert not torch.equal(one(wav), other(wav))


def test_gradients_reach_every_parameter(arrays) -> None:
    model = fixture("tiny_finetuned").train()
    model.encoder.config = replace(model.config, encoder_layerdrop=0.0)
    wav, mask = inputs(arrays["tiny_finetuned"], "batch_padded")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model.logits(wav, mask), torch.tensor([1, 2, 3]))
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


@torch.no_grad()
def test_training_mode_drops_what_the_settings_say() -> None:
    wav = noise(2, 4000)

    def output(**changes: float) -> torch.Tensor:
        torch.manual_seed(0)
        return beats.random(tiny(encoder_layerdrop=0.0, **{**changes})).train()(wav)

    plain = beats.random(tiny())(wav)
    torch.testing.assert_close(output(), plain)
    for name in ("dropout", "attention_dropout", "activation_dropout", "dropout_input"):
        assert not torch.allclose(output(**{name: 0.5}), plain)
    model = beats.random(tiny(encoder_layerdrop=math.nextafter(1, 0)))
    entered = []
    model.encoder.layer_norm.register_forward_hook(lambda _m, _i, output: entered.append(output))
    assert torch.equal(model.train()(wav), entered[0])
    assert not torch.equal(model.eval()(wav), entered[0])
    head = beats.random(tiny(finetuned_model=True, predictor_class=3, predictor_dropout=0.5))
    head.encoder.config = tiny(encoder_layerdrop=0.0)
    assert not torch.equal(head.train().logits(wav), head.eval().logits(wav))


@settings(max_examples=50, deadline=None)
@given(samples=st.integers(2800, 40_000), data=st.data())
def test_padding_masks_shrink_from_the_end(samples: int, data: st.DataObject) -> None:
    model = meta_model()
    ends = sorted(data.draw(st.lists(st.integers(0, samples), min_size=2, max_size=4)))
    mask = torch.arange(samples) >= torch.tensor([*ends, samples, 0])[:, None]
    tokens = model.token_mask(mask)
    assert tokens.shape == (len(mask), ((samples - 400) // 160 + 1) // 16 * 8)
    counts = tokens.sum(1)
    assert counts[-2] == 0 and counts[-1] == tokens.shape[1]
    assert (counts[:-2].diff() <= 0).all()
    # Padding is at the end, as in the samples.
    assert (tokens[:, 1:] >= tokens[:, :-1]).all()


def meta_model() -> Beats:
    with torch.device("meta"):
        return Beats(tiny())


def test_wrong_inputs_are_refused() -> None:
    model = beats.random(tiny())
    model(noise(1, 2800))
    for wav in (noise(1, 2799), noise(2800), torch.zeros(1, 2800, dtype=torch.int16)):
        with pytest.raises(ValueError, match="at least 2800 samples"):
            model(wav)
    wav = noise(2, 2800)
    for mask in (torch.zeros(2, 2799, dtype=torch.bool), torch.zeros(2, 2800)):
        with pytest.raises(ValueError, match="expected bool"):
            model(wav, mask)
    mask = torch.tensor([False, True])[:, None].expand(2, 2800)
    with pytest.raises(ValueError, match="padding alone"):
        model(wav, mask)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch.time, "sleep", lambda _seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.data = (FIXTURES / "tiny_pretrained.pt").read_bytes()
        monkeypatch.setattr(beats_checkpoints, "_HUB", running.url)
        released = Checkpoint(running.sha256, ("one/resolve/main", "two/resolve/main"))
        monkeypatch.setitem(CHECKPOINTS, "BEATs_iter3", released)
        yield running
        running.shutdown()


def test_a_checkpoint_is_fetched_resumed_and_verified(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "beats"
    server.drops = 2
    path = download_beats(folder)
    assert server.seen == [None, "bytes=1000-", "bytes=2000-"]
    assert [p.name for p in folder.iterdir()] == ["BEATs_iter3.pt"]
    assert beats.load(path).config.encoder_layers == 2
    assert download_beats(folder) == path
    assert len(server.seen) == 3


def test_the_next_mirror_goes_on(server: Server, tmp_path: Path) -> None:
    # The first mirror dies after 1000 bytes for good.
    server.drops, server.limit = 5, 0
    (tmp_path / "BEATs_iter3.pt.partial").write_bytes(server.data[:1000])
    download_beats(tmp_path)
    assert server.seen == ["bytes=1000-"] * 6


def test_wrong_bytes_leave_nothing(server: Server, tmp_path: Path) -> None:
    server.data = b"<html>moved</html>"
    with pytest.raises(EarmarkError, match=r"two/resolve/main/BEATs_iter3\.pt: wrong checksum"):
        download_beats(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(server.seen) == 2
    mine = tmp_path / "BEATs_iter3.pt"
    mine.write_text("mine")
    with pytest.raises(EarmarkError, match="is not the released file"):
        download_beats(tmp_path)
    assert mine.read_text() == "mine"


def test_a_checkpoint_without_a_mirror_needs_an_address(server: Server, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="--url"):
        download_beats(tmp_path, "BEATs_iter1")
    with pytest.raises(EarmarkError, match="wrong checksum"):
        download_beats(tmp_path, "BEATs_iter1", server.url)
    with pytest.raises(EarmarkError, match="choose from BEATs_iter1, "):
        download_beats(tmp_path, "BEATs_iter9")


def test_known_checkpoints_are_well_formed() -> None:
    assert beats_checkpoints.DEFAULT in CHECKPOINTS
    assert CHECKPOINTS[beats_checkpoints.DEFAULT].mirrors
    sums = [bytes.fromhex(known.sha256) for known in CHECKPOINTS.values()]
    assert {len(digest) for digest in sums} == {hashlib.sha256().digest_size}
    assert len(set(sums)) == len(CHECKPOINTS) == 8


def run(*arguments: object) -> int:
    parser = ArgumentParser()
    cli_data.download.configure(parser)
    return cli_data.download.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_verb_fetches_a_checkpoint(server: Server, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("beats", "--url", server.url) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file"] == str(Path("data", "beats", "BEATs_iter3.pt"))
    assert report["source"]["role"] == "teacher"
    assert beats.load(report["file"]).config.embed_dim == 32
    assert run("beats", "-o", tmp_path / "b", "--checkpoint", "BEATs_iter3") == 0
    assert (tmp_path / "b" / "BEATs_iter3.pt").exists()
    with pytest.raises(EarmarkError, match="--url goes with weights of teachers"):
        run("speech-commands", "-o", tmp_path / "sc", "--url", server.url)
