"""A user's own helpers, with state of their own."""

import functools

CALLS = 0
HISTORY = []
CACHE = {}


def count():
    global CALLS
    CALLS += 1


def smooth(loss):
    HISTORY.append(loss.item())
    return sum(HISTORY) / len(HISTORY)


class Statistics:
    count = 0


def counted(function):
    @functools.wraps(function)
    def wrapper(*args):
        wrapper.calls += 1
        return function(*args)

    wrapper.calls = 0
    return wrapper


@counted
def halved(loss):
    return loss / 2
