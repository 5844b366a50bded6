"""Says which system packages the tests would use and do not find, and how to install them."""

import ctypes.util
import shutil
import sys

missing = [name for name in ("pulseaudio", "pactl", "paplay") if not shutil.which(name)]
if not ctypes.util.find_library("portaudio"):
    missing.append("PortAudio")
if missing and sys.platform == "linux":
    print(
        f"not found: {', '.join(missing)}; the tests of the microphone will be skipped. Install "
        "them with: apt-get install libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins",
        file=sys.stderr,
    )
