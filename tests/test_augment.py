"""Each augmentation alone."""

from dataclasses import replace

import pytest
import torch
from earmark.train import augment
from earmark.train.augment import AugmentSettings, Mixture
from earmark.train.draws import Draws
from hypothesis import given
from hypothesis import strategies as st

RATE = 16000


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def draws(batch: int, seed: int = 0) -> Draws:
    return Draws.of(seed, torch.arange(batch))


def level(x: torch.Tensor) -> torch.Tensor:
    return 10 * x.square().mean(-1).log10()


def clicks(batch: int) -> torch.Tensor:
    """Clips with a short pulse in the middle."""
    wav = torch.zeros(batch, RATE)
    wav[:, RATE // 2 - 40 : RATE // 2 + 40] = 0.5
    return wav


def test_shift_moves_by_no_more_than_asked() -> None:
    moved = augment.warp(clicks(200), draws(200), shift=0.1 * RATE, speed=0.0)
    centre = (moved.abs() * torch.arange(RATE)).sum(1) / moved.abs().sum(1)
    offset = (centre - RATE / 2).abs() / RATE
    assert offset.max() <= 0.101 and offset.max() > 0.09
    assert moved.shape == (200, RATE)


def test_speed_changes_the_pitch() -> None:
    tone = torch.sin(torch.arange(RATE) * 2 * torch.pi * 1000 / RATE).repeat(50, 1)
    spectrum = torch.fft.rfft(augment.warp(tone, draws(50), 0.0, 0.2)).abs().argmax(1)
    assert spectrum.min() < 900 and spectrum.max() > 1100
    assert spectrum.min() >= 799 and spectrum.max() <= 1201


def test_no_warp_changes_nothing() -> None:
    wav = torch.randn(3, RATE)
    torch.testing.assert_close(augment.warp(wav, draws(3), 0.0, 0.0), wav, atol=2e-2, rtol=0)


def test_reverb_keeps_level_and_onset_and_adds_a_tail() -> None:
    wav = clicks(20)
    chosen = torch.arange(20) < 10
    wet = augment.reverberate(wav, chosen, draws(20), (0.3, 0.6), RATE)
    assert torch.equal(wet[10:], wav[10:])
    torch.testing.assert_close(level(wet), level(wav), atol=0.01, rtol=0)
    assert wet[:10, : RATE // 2 - 40].abs().max() < 1e-4
    assert (wet[:10, RATE // 2 + 400 :].square().sum(1) > 0).all()
    assert (wav[:10, RATE // 2 + 400 :].square().sum(1) == 0).all()


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_background_has_the_snr_asked_for(snr: float) -> None:
    wav, noise = 0.1 * torch.randn(8, RATE), 3 * torch.rand(8, RATE) - 1.5
    mixed = augment.add_background(wav, noise, draws(8), 1.0, (snr, snr))
    torch.testing.assert_close(
        level(wav) - level(mixed - wav), torch.full((8,), snr), atol=0.05, rtol=0
    )


def test_background_survives_silence_on_either_side() -> None:
    wav = torch.stack([torch.zeros(RATE), torch.randn(RATE)])
    mixed = augment.add_background(wav, torch.zeros(2, RATE), draws(2), 1.0, (0.0, 0.0))
    assert torch.equal(mixed, wav)  # no level is no reason for an offset


def test_background_comes_as_often_as_asked() -> None:
    wav = torch.randn(400, 100)
    mixed = augment.add_background(wav, torch.randn(400, 100), draws(400), 0.25, (0.0, 0.0))
    share = (mixed != wav).any(1).float().mean()
    assert 0.15 < share < 0.35


def test_masks_lie_on_bands_and_frames_and_hold_the_mean() -> None:
    log_mel = torch.randn(50, 98, 40) + 3
    settings = AugmentSettings(frequency_masks=1, time_masks=1, frequency_mask=5, time_mask=10)
    masked = augment.mask_bands(log_mel, draws(50), settings)
    changed = (masked - log_mel).abs() > 1e-4
    bands = (changed.float().mean(1) > 0.95).sum(1)
    frames = (changed.float().mean(2) > 0.95).sum(1)
    assert bands.max() == 5 and frames.max() == 10
    mean = log_mel.mean(dim=(1, 2), keepdim=True).expand_as(log_mel)
    torch.testing.assert_close(masked[changed], mean[changed], atol=1e-4, rtol=0)


def test_no_masks_change_nothing() -> None:
    log_mel = torch.randn(2, 98, 40)
    settings = AugmentSettings(frequency_masks=0, time_mask=0)
    assert torch.equal(augment.mask_bands(log_mel, draws(2), settings), log_mel)


def test_mixup_mixes_targets_as_it_mixes_examples() -> None:
    target = torch.eye(4).repeat(8, 1)
    mix = Mixture.draw(32, 0.5, torch.device("cpu"))
    mixed = mix(target)
    torch.testing.assert_close(mix(target[:, :, None])[:, :, 0], mixed)
    torch.testing.assert_close(mixed.sum(1), torch.ones(32))
    assert ((mixed > 0.05) & (mixed < 0.95)).any()


def test_empty_clips_become_background() -> None:
    pool = torch.randint(-8000, 8000, (60 * RATE,), dtype=torch.int16)
    wav = torch.cat([0.3 * torch.randn(300, RATE), torch.zeros(300, RATE)])
    label = torch.cat([torch.zeros(300, dtype=torch.long), torch.full((300,), 2)])
    out = augment.augment_audio(wav, label, draws(600), pool, AugmentSettings(), RATE, silence=2)
    silent = (out[300:] == 0).all(1).float().mean()
    assert 0.005 < silent < 0.12
    assert out.abs().max() <= 1 and torch.isfinite(out).all()


@given(order=st.permutations(range(12)), size=st.integers(1, 12), view=st.integers(0, 2**32))
def test_a_view_does_not_depend_on_its_batch(order: list[int], size: int, view: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randint(-8000, 8000, (3 * RATE,), dtype=torch.int16, generator=generator)
    wav = 0.3 * torch.randn(12, 4000, generator=generator)
    wav[10:] = 0
    label = torch.tensor([0] * 10 + [2, 2])
    settings = AugmentSettings(reverb=0.5)

    def views(rows: torch.Tensor) -> torch.Tensor:
        streams = Draws.of(3, rows, torch.full_like(rows, view))
        return augment.augment_audio(
            wav[rows], label[rows], streams, pool, settings, RATE, silence=2
        )

    rows = torch.tensor(order[:size])
    whole = views(torch.arange(12))
    torch.testing.assert_close(views(rows), whole[rows], atol=1e-6, rtol=0)


def test_views_seeds_and_clips_differ() -> None:
    clip, view = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    numbers = torch.stack([Draws.of(seed, clip, view).noise("a", 1000) for seed in (0, 1)])
    assert len(numbers.flatten(0, 1).unique(dim=0)) == 8
    # Independent streams are uncorrelated, and even over their range.
    correlation = torch.corrcoef(numbers.flatten(0, 1)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.13
    assert abs(numbers.mean() - 0.5) < 0.02 and abs(numbers.var() - 1 / 12) < 0.005
    assert numbers.min() >= 0 and numbers.max() < 1


def test_whole_numbers_reach_both_ends() -> None:
    drawn = draws(1000).below("x", 3)
    assert drawn.bincount().tolist() == pytest.approx([333, 333, 333], abs=60)
    assert draws(4).below("x", torch.tensor([1, 1, 1, 1])).tolist() == [0, 0, 0, 0]


def test_each_setting_alone_changes_what_is_heard() -> None:
    off = AugmentSettings(
        shift=0, speed=0, gain=(0.0, 0.0), reverb=0, noise=0, silence_level=(0.0, 0.0)
    )
    generator = torch.Generator().manual_seed(0)
    pool = torch.randint(-800, 800, (20 * RATE,), dtype=torch.int16, generator=generator)
    # Twenty clips of a word and twenty to be filled with background.
    wav, label = clicks(40), torch.tensor([0] * 20 + [2] * 20)
    wav[20:] = 0

    def heard(settings: AugmentSettings) -> tuple[torch.Tensor, torch.Tensor]:
        """Words, and backgrounds without those that stay silent."""
        out = augment.augment_audio(wav, label, draws(40), pool, settings, RATE, 2)
        return out[:20], out[20:][out[20:].any(1)]

    words, backgrounds = heard(off)
    torch.testing.assert_close(words, wav[:20], atol=1e-3, rtol=0)
    assert len(backgrounds) > 10
    louder, same = heard(replace(off, gain=(6.0, 6.0)))
    torch.testing.assert_close(louder, words * 10**0.3)
    assert torch.equal(same, backgrounds)
    same, softer = heard(replace(off, silence_level=(-20.0, -20.0)))
    torch.testing.assert_close(softer, backgrounds / 10)
    assert torch.equal(same, words)
    noisy = heard(replace(off, noise=1, snr=(10.0, 10.0)))[0] - words
    torch.testing.assert_close(level(noisy), level(words) - 10, atol=0.1, rtol=0)
    for some in ({"shift": 0.1}, {"speed": 0.1}, {"reverb": 1}):
        changed, same = heard(replace(off, **some))
        assert ((changed - words).abs().amax(1) > 0.05).all(), some
        assert torch.equal(same, backgrounds), some
