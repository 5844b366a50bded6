"""Says which system packages the tests would use and do not find, and how to install them."""

import ctypes.util
import os
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
if not shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"):
    print(
        "not found: mosquitto; the tests of MQTT will be skipped. Install it with: "
        "apt-get install mosquitto",
        file=sys.stderr,
    )
if missing := [name for name in ("g++", "node", "npm") if not shutil.which(name)]:
    print(
        f"not found: {', '.join(missing)}; tests of the C++ and Node examples will be skipped. "
        "Install them with: apt-get install g++ nlohmann-json3-dev nodejs npm; then run .ci/ports",
        file=sys.stderr,
    )
