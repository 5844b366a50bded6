"""Options that several verbs share."""

import dataclasses
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import EarmarkError
from .manifest import Decision, Manifest

if TYPE_CHECKING:
    from .sinks.sink import Sink, Tell


_BELONGS = {
    "mqtt_password_file": "mqtt",
    "mqtt_ca": "mqtt",
    "mqtt_topic": "mqtt",
    "mqtt_payload": "mqtt",
    "mqtt_site": "mqtt",
    "mqtt_availability": "mqtt",
    "mqtt_qos": "mqtt",
    "http_origin": "http",
}
"""Options that say something of another one alone."""


def add_model_options(parser: ArgumentParser, several: bool = False) -> None:
    """``--model``, ``--operating-point`` and ``--threshold``.

    ``several``: ``--model`` may be repeated, and is a list.
    """
    repeated = "; may be repeated" if several else ""
    parser.add_argument(
        "--model",
        metavar="FILE",
        action="append" if several else "store",
        help=f"model file (default: the one that is shipped){repeated}",
    )
    parser.add_argument(
        "--operating-point",
        metavar="NAME",
        help="named settings of the model file (see earmark info) in place of its default",
    )
    parser.add_argument(
        "--threshold",
        metavar="[KEYWORD=]T",
        action="append",
        default=[],
        help="smoothed posterior at which a keyword, or every other one, fires; may be repeated",
    )


def add_device_options(parser: ArgumentParser) -> None:
    """``--device`` and ``--channel``."""
    parser.add_argument(
        "--device", metavar="NAME|INDEX", help="input device (default: the system's)"
    )
    parser.add_argument(
        "--channel", metavar="N|mix", default="0", help="channel to hear, from 0 (default: 0)"
    )


def chosen_device(text: str | None) -> str | int | None:
    """A device given by a number is meant by its index."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else text


def chosen_channel(text: str) -> int | str:
    """Raises EarmarkError where ``text`` is no channel."""
    if text == "mix":
        return text
    if not text.isdecimal() or len(text) > 5:
        raise EarmarkError(f"--channel {text}: give a number from 0, or mix")
    return int(text)


def add_gate_option(parser: ArgumentParser) -> None:
    """``--gate``."""
    parser.add_argument(
        "--gate",
        type=float,
        metavar="DB",
        help="skip the network while the audio stays below this level, in dB of full scale: saves "
        "CPU, and words that are softer are not heard (default: off)",
    )


def chosen_decision(
    manifest: Manifest, operating_point: str | None, thresholds: list[str]
) -> Decision:
    """The settings of ``--operating-point``, None being the model's default, with ``--threshold``
    values applied: a keyword's own after those for all, else in their order.

    Raises:
        EarmarkError: the model has no such point, a value is no number in (0, 1] or a keyword is
            not the model's.
    """
    decision = manifest.decision
    if operating_point is not None:
        points = manifest.operating_points
        if operating_point not in points:
            known = f"the model has {', '.join(points)}" if points else "the model has none"
            raise EarmarkError(f"--operating-point {operating_point}: {known} (see earmark tune)")
        decision = points[operating_point]
    chosen = dict(decision.thresholds)
    for text in sorted(thresholds, key=lambda text: "=" in text):
        keyword, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise EarmarkError(
                f"--threshold {text}: give a number above 0 and at most 1, or KEYWORD=number"
            )
        if not equals:
            chosen = dict.fromkeys(chosen, value)
        elif keyword in chosen:
            chosen[keyword] = value
        else:
            raise EarmarkError(
                f"--threshold {text}: the model's keywords are {', '.join(manifest.keywords)}"
            )
    return dataclasses.replace(decision, thresholds=chosen)


def add_event_options(parser: ArgumentParser) -> None:
    """``--heartbeat``, and where events go besides standard output."""
    events = parser.add_argument_group("events out")
    events.add_argument(
        "--heartbeat",
        type=positive,
        metavar="SECONDS",
        help="an event with counters every so often, to see that all is well",
    )
    events.add_argument("--log", metavar="FILE", help="append events to a file as JSON lines")
    events.add_argument(
        "--exec",
        metavar="CMD",
        help="run a command for each detection: the event comes as JSON on its standard input, "
        "EARMARK_KEYWORD, EARMARK_SCORE and EARMARK_TIME in its environment; no shell",
    )
    mqtt = parser.add_argument_group("MQTT")
    mqtt.add_argument(
        "--mqtt",
        metavar="URL",
        help="publish detections: mqtt://[USER@]HOST[:PORT], mqtts:// for TLS; "
        "the password comes from the environment, EARMARK_MQTT_PASSWORD",
    )
    mqtt.add_argument("--mqtt-password-file", metavar="FILE", help="or from the one line of a file")
    mqtt.add_argument("--mqtt-ca", metavar="FILE", help="certificate authority of the broker, PEM")
    mqtt.add_argument(
        "--mqtt-topic",
        metavar="TEMPLATE",
        help="default: hermes/hotword/{keyword}/detected; also {source}, {site}, {model}",
    )
    mqtt.add_argument(
        "--mqtt-payload",
        metavar="TEMPLATE",
        help="default: the Hermes JSON; fields as in topics, and {score}, {time}, {at}",
    )
    mqtt.add_argument("--mqtt-site", metavar="ID", help="Hermes site id (default: default)")
    mqtt.add_argument(
        "--mqtt-availability",
        metavar="TOPIC",
        help="where online and offline are retained (default: earmark/SITE/availability)",
    )
    mqtt.add_argument(
        "--mqtt-qos",
        type=int,
        choices=(0, 1, 2),
        help="0 (the default): what the broker misses for 10 s is given up; 1 and 2: the newest "
        "100 wait for it",
    )
    http = parser.add_argument_group("HTTP")
    http.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        help="serve events as they happen: /events (server-sent events) and a page that shows "
        "them; on this machine alone unless HOST says otherwise",
    )
    http.add_argument(
        "--http-origin",
        metavar="ORIGIN",
        action="append",
        help="let pages from there read the events, such as http://tablet:3000; may be repeated",
    )


def open_sinks(
    arguments: Namespace,
    model: str,
    tell: "Tell",
    *,
    waits: Callable[[], bool] | None = None,
    quiet: bool = False,
) -> list["Sink"]:
    """The sinks that :func:`add_event_options` asks for, each behind a queue of its own.

    Args:
        model: its name.
        tell: hears of troubles.
        waits: see :class:`earmark.runtime.sinks.sink.Queued`.
        quiet: see :class:`earmark.runtime.sinks.exec.Exec`.

    Raises:
        EarmarkError: an option is wrong, or a package is not installed.
    """
    from .sinks.sink import LogFile, Queued

    for option, of in _BELONGS.items():
        if getattr(arguments, option) is not None and getattr(arguments, of) is None:
            raise EarmarkError(f"--{option.replace('_', '-')}: goes with --{of}: give that too")
    sinks: list[Sink] = []
    try:
        if arguments.log is not None:
            sinks.append(Queued(LogFile(arguments.log, tell), waits=waits))
        if arguments.exec is not None:
            from .sinks.exec import MAX_PROCESSES, Exec

            command = Exec(arguments.exec, tell, quiet=quiet)
            sinks.append(Queued(command, waits=waits, threads=MAX_PROCESSES))
        if arguments.mqtt is not None:
            sinks.append(Queued(_mqtt(arguments, model, tell), waits=waits))
        if arguments.http is not None:
            from .sinks.http import EventServer, address

            server = EventServer(*address(arguments.http), tuple(arguments.http_origin or ()))
            sinks.append(server)
            tell(f"events are served at {server.url}")
            if server.exposure:
                tell(server.exposure)
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks


def positive(text: str) -> float:
    """A type of argparse: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError("a number above 0 is needed")
    return value


def _mqtt(arguments: Namespace, model: str, tell: "Tell") -> "Sink":
    try:
        from .sinks.mqtt import PAYLOAD, TOPIC, Broker, Mqtt
    except ModuleNotFoundError as error:
        raise EarmarkError('--mqtt needs paho-mqtt: pip install "earmark[mqtt]"') from error
    broker = Broker.from_options(arguments.mqtt, arguments.mqtt_password_file, arguments.mqtt_ca)
    return Mqtt(
        broker,
        tell,
        topic=TOPIC if arguments.mqtt_topic is None else arguments.mqtt_topic,
        payload=PAYLOAD if arguments.mqtt_payload is None else arguments.mqtt_payload,
        site="default" if arguments.mqtt_site is None else arguments.mqtt_site,
        availability=arguments.mqtt_availability,
        qos=arguments.mqtt_qos or 0,
        model=model,
    )
