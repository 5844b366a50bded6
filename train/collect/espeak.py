"""eSpeak NG through ctypes: text to phonemes and to samples, from the wheel ``espeakng-loader``.

The library keeps its state in globals, so a process has one synthesizer and it is not thread-safe.
Part of that state (phases of the oscillators, flutter) survives from one utterance to the next and
cannot be reset: the same calls give the same samples only when made from the start of a process.
"""

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError

# Constants of espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_PHONEMES_IPA = 0x02
_SEPARATOR = "_"
# Part of the variants of the voices are loud enough to clip at the default of 100.
_QUIET = 40
_MOST_VOICES = 10_000
# Speaks another alphabet, although its code begins like that of English.
_OTHER_ALPHABET = ("en-shaw",)


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Synthesizer:
    """The one synthesizer of this process; get it from :func:`synthesizer`."""

    rate: int
    """Sample rate of what it speaks, Hz."""
    version: str
    variants: tuple[str, ...]
    """Voice qualities that go with any language, such as ``f3`` and ``klatt2``; "" is plain."""
    _library: Any
    _spoken: list[NDArray[np.int16]]
    _callback: Any

    def voices(self, language: str) -> tuple[str, ...]:
        """The accents of a language, as names of voices: ``gmw/en-US`` and others for ``en``.

        Raises:
            EarmarkError: there is none.
        """
        listed = self._voices()
        wanted = language.lower()
        codes = [c for c in listed if c == wanted or c.startswith(wanted + "-")]
        if not codes:
            roots = sorted({code.partition("-")[0] for code in listed})
            raise EarmarkError(
                f"language {language!r}: not known to eSpeak NG: use one of {', '.join(roots)}"
            )
        return tuple(listed[c] for c in codes if c == wanted or c not in _OTHER_ALPHABET)

    def phonemes(self, texts: Iterable[str], voice: str) -> list[tuple[str, ...]]:
        """The sounds of each text (International Phonetic Alphabet), without stress and length."""
        self._select(voice)
        return [self._phonemes(text) for text in texts]

    def speak(
        self, text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int
    ) -> NDArray[np.int16]:
        """Samples of a spoken text at :attr:`rate`, well below full scale.

        Args:
            text: what to say.
            voice: as of :meth:`voices`, with ``+variant`` for another voice quality.
            words_per_minute: 80 to 450.
            pitch: 0 to 100; 50 is the voice's own.
            pitch_range: 0 (monotone) to 100.

        Returns:
            int16 [samples].
        """
        self._select(voice)
        values = {_RATE: words_per_minute, _VOLUME: _QUIET, _PITCH: pitch, _RANGE: pitch_range}
        for parameter, value in values.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        self._spoken.clear()
        data = text.encode()
        status = self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        if status != 0:
            raise EarmarkError(f"{text!r}: eSpeak NG cannot speak it (status {status})")
        return np.concatenate([np.zeros(0, np.int16), *self._spoken])

    def _phonemes(self, text: str) -> tuple[str, ...]:
        rest = ctypes.c_char_p(text.encode())
        mode = _PHONEMES_IPA | ord(_SEPARATOR) << 8
        clauses = []
        while rest.value is not None:
            clauses.append(
                self._library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, mode)
            )
        joined = b" ".join(clause or b"" for clause in clauses).decode()
        sounds = joined.replace(" ", _SEPARATOR).split(_SEPARATOR)
        return tuple(s for s in (sound.strip("ˈˌː") for sound in sounds) if s)

    def _select(self, voice: str) -> None:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise EarmarkError(f"voice {voice!r}: not known to eSpeak NG")

    def _voices(self) -> dict[str, str]:
        """Language code -> name of the voice file. Not every code is also the name of a voice."""
        listed = self._library.espeak_ListVoices(None)
        found = {}
        for i in range(_MOST_VOICES):
            if not listed[i]:
                break
            voice = listed[i].contents
            # The first byte is the priority of the language, its code follows up to a zero byte.
            code = ctypes.string_at(voice.languages + 1).decode().lower()
            found.setdefault(code, voice.identifier.decode())
        return dict(sorted(found.items()))


@cache
def synthesizer() -> Synthesizer:
    """Load the library and its data.

    Raises:
        EarmarkError: the wheel is damaged, or was built for another machine.
        ModuleNotFoundError: ``espeakng-loader`` is not installed.
    """
    import espeakng_loader

    remedy = "reinstall it: pip install --force-reinstall espeakng-loader"
    try:
        data = Path(espeakng_loader.get_data_path())
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except (OSError, RuntimeError) as error:
        raise EarmarkError(f"eSpeak NG cannot be loaded ({error}): {remedy}") from error
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    rate = library.espeak_Initialize(
        _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _INITIALIZE_DONT_EXIT
    )
    if rate <= 0:
        raise EarmarkError(f"{data}: eSpeak NG finds no voice data there: {remedy}")
    # Breath and whisper are noise, seeded by the clock unless told otherwise.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    spoken: list[NDArray[np.int16]] = []

    @_CALLBACK
    def collect(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            spoken.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    # Voice files are named in text; one with a space in its name cannot be.
    names = sorted(p.name for p in (data / "voices" / "!v").glob("*") if " " not in p.name)
    return Synthesizer(
        rate, library.espeak_Info(None).decode(), ("", *names), library, spoken, collect
    )
