"""What a wheel with the compiled code fits: one system and processor, and any Python 3.

The code is loaded by ctypes and uses nothing of Python. This is run by setuptools alone, when a
wheel is made.
"""

from setuptools.command.bdist_wheel import bdist_wheel


class PlatformWheel(bdist_wheel):
    """A wheel for any Python of this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, its interface, platform."""
        return "py3", "none", super().get_tag()[2]
