"""Let subjects that are compared take turns, so that a slow moment slows all alike.

A subject is a function that sets something up, and returns a function that measures it
once. Each has a process of its own.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd

REPEATS = 3

Measure = Callable[[], Any]
Subject = Callable[[], Measure]


def serve(pipe: Connection, subject: Subject) -> None:
    """Set a subject up, warm it up, then measure whenever asked.

    Args:
        pipe: Sends None when the subject is ready, then a measurement for each True
            that it receives.
        subject: What is measured.
    """
    measure = subject()
    measure()
    pipe.send(None)
    while pipe.recv():
        pipe.send(measure())


@contextmanager
def running(subject: Subject) -> Iterator[Connection]:
    """Start a process in which a subject sets itself up.

    Args:
        subject: A function that a new process can import.

    Yields:
        The other end of the pipe of ``serve``.
    """
    context = multiprocessing.get_context("spawn")
    pipe, pipe_of_process = context.Pipe()
    process = context.Process(
        target=serve, args=(pipe_of_process, subject), daemon=True
    )
    process.start()
    # left to the process alone, so that its failure ends the wait for an answer
    pipe_of_process.close()
    try:
        yield pipe
    finally:
        process.kill()
        process.join()


def measure_once(subject: Subject) -> Any:
    """Measure a subject by itself.

    Args:
        subject: What is measured.

    Returns:
        The measurement.

    Raises:
        EOFError: The subject failed.
    """
    with running(subject) as pipe:
        pipe.recv()  # it is ready
        return _ask(pipe)


def measure_rounds(subjects: dict[str, Subject], repeats: int) -> pd.DataFrame:
    """Measure subjects in turns, and print the measurements.

    Args:
        subjects: By name.
        repeats: How often each is measured.

    Returns:
        A column for each subject, a row for each round.

    Raises:
        EOFError: A subject failed.
    """
    with ExitStack() as stack:
        pipes = {}
        for name, subject in subjects.items():
            pipes[name] = stack.enter_context(running(subject))
        for pipe in pipes.values():
            pipe.recv()  # it is ready
        rounds = []
        for _ in range(repeats):
            measured = {name: _ask(pipe) for name, pipe in pipes.items()}
            rounds.append(measured)
    table = pd.DataFrame(rounds)
    print(table.round(3).to_string(index=False), flush=True)
    return table


def measure_medians(
    subjects: dict[str, Subject], repeats: int = REPEATS
) -> dict[str, float]:
    """Measure subjects in turns, and print the measurements.

    Args:
        subjects: By name.
        repeats: How often each is measured.

    Returns:
        The median of each.

    Raises:
        EOFError: A subject failed.
    """
    table = measure_rounds(subjects, repeats)
    return {name: float(table[name].median()) for name in subjects}


def _ask(pipe: Connection) -> Any:
    """Let a subject that is ready measure once."""
    pipe.send(True)
    return pipe.recv()


def rate(count: float, work: Callable[[], Any]) -> Measure:
    """Make a function that measures how fast some work is done.

    Args:
        count: How many images, or other things, the work handles.
        work: The work.

    Returns:
        A function that does the work, and returns how many are handled a second.
    """

    def measure() -> float:
        started = time.perf_counter()
        work()
        return count / (time.perf_counter() - started)

    return measure
