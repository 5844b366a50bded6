"""onnxruntime, imported so that it reports to nobody.

Its builds (1.32 is one) tell Microsoft what they run unless this variable is set when they are
first imported: they write an identifier and a database below the home directory and look for a
server. What listens to a microphone must not, and it saves a thread and 2 MB. Who wants it sets the
variable to 0.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
