"""Work that is cut into tasks, each in a process of its own."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ...runtime.errors import EarmarkError
from ..progress import progress


@dataclass(frozen=True)
class Task:
    """Work for one process: ``function(*arguments)`` yields ``steps`` times."""

    steps: int
    function: Callable[..., Iterator[None]]
    arguments: tuple[Any, ...]


def run_tasks(text: str, tasks: Sequence[Task], workers: int, preload: Sequence[str]) -> None:
    """Run every task in a fresh process, ``workers`` at a time; the first error ends all.

    Args:
        text: what is being done, for people.
        tasks: what to do. A process ends after the step it is in, where another failed.
        workers: processes at a time.
        preload: modules that each of them needs, imported once where the system can do so.

    Raises:
        EarmarkError: a task raised it, or its process died.
    """
    # Not fork: the threads below, and a synthesizer loaded here, would come along.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([*preload])
    stop = threading.Event()
    total = sum(task.steps for task in tasks)
    with progress(text, total) as advance, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_watch, context, task, advance, stop) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _watch(context: Any, task: Task, advance: Callable[[int], None], stop: threading.Event) -> None:
    """Run one task to its end, or until ``stop``: the process ends after the step it is in."""
    if stop.is_set():
        return
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, task), daemon=True)
    process.start()
    sender.close()
    done = False
    try:
        while not stop.is_set():
            if not receiver.poll(0.1):
                continue
            message = receiver.recv()
            if isinstance(message, str):
                raise EarmarkError(message)
            if message == 0:
                done = True
                return
            advance(message)
    except EOFError:
        pass
    finally:
        receiver.close()
        process.join()
    if not done and not stop.is_set():
        raise EarmarkError(f"a process died (exit status {process.exitcode}): run it again")


def _child(sender: Connection, task: Task) -> None:
    """Tell of every step by 1, of the end by 0, of an error by its text."""
    # An interrupt goes to the parent alone; it stops this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent has left where the pipe is broken: another process failed, or it was interrupted.
    with suppress(BrokenPipeError):
        try:
            for _ in task.function(*task.arguments):
                sender.send(1)
            sender.send(0)
        except EarmarkError as error:
            sender.send(str(error))
