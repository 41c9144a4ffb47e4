import io
import os
import re
import threading

import pytest

from pipelines import progress
from pipelines.progress import Board, duration

CLEAR = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds) lets time pass; it stands still otherwise."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def forward(seconds):
        now[0] += seconds

    return forward


@pytest.fixture
def columns(monkeypatch):
    """columns(n): the terminal is n wide."""
    return lambda n: monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((n, 24)))


def lines(terminal):
    """What was drawn, one entry a redraw."""
    return terminal.getvalue().split(CLEAR)[1:]


def test_done_weighs_items_by_their_cost():
    board = Board({"a": 1.0, "b": 3.0}, io.StringIO())
    assert board.done == 0.0
    board.update("a", 1.0)
    assert board.done == 0.25
    board.update("b", 0.5)
    assert board.done == pytest.approx(0.625)
    board.update("b", 7.0)
    assert board.done == 1.0


def test_an_item_never_goes_back():
    board = Board({"a": 1.0}, io.StringIO())
    board.update("a", 0.6)
    board.update("a", 0.2)
    assert board.done == 0.6


def test_no_work_is_no_progress():
    assert Board({}, io.StringIO()).done == 0.0


def test_the_eta_extrapolates_the_pace_over_the_cost_that_is_left(clock):
    board = Board({"a": 1.0, "b": 3.0}, io.StringIO())
    clock(10)
    assert board.eta() is None
    board.update("a", 0.04)
    assert board.eta() is None
    board.update("a", 1.0)
    assert board.eta() == pytest.approx(30.0)
    clock(10)
    board.update("b", 1.0)
    assert board.eta() == 0.0


@pytest.mark.parametrize("jump", [1e8, -1e8])
def test_a_jump_of_the_date_moves_no_eta(jump, clock, columns, monkeypatch):
    columns(80)
    terminal = Terminal()
    board = Board({"a": 1.0}, terminal)
    clock(60)
    monkeypatch.setattr(progress.time, "time", lambda: jump)
    board.update("a", 0.25)
    assert board.eta() == pytest.approx(180.0)
    assert "3 min 00 s left" in terminal.getvalue()


def test_nothing_is_drawn_on_what_is_no_terminal(clock, capsys):
    stream = io.StringIO()
    board = Board({"a": 1.0}, stream)
    for share in (0.1, 0.5, 1.0):
        clock(10)
        board.update("a", share)
    board.say("kept")
    board.close()
    assert stream.getvalue() == ""
    assert capsys.readouterr() == ("kept\n", "")


def test_the_default_stream_is_stderr_and_silent_here(capsys):
    board = Board({"a": 1.0})
    board.update("a", 1.0)
    board.close()
    assert capsys.readouterr() == ("", "")


def test_a_line_shows_the_bar_the_share_the_time_left_and_the_item(clock, columns):
    columns(80)
    terminal = Terminal()
    board = Board({"a": 1.0}, terminal)
    clock(60)
    board.update("a", 0.25, "a: train 25 %")
    assert lines(terminal) == [f"{'█' * 6}{'░' * 18}  25 %  3 min 00 s left  a: train 25 %"]
    clock(60)
    board.update("a", 0.5)
    assert lines(terminal)[-1].endswith("50 %  2 min 00 s left  a")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_line_never_wraps(width, clock, columns):
    columns(width)
    terminal = Terminal()
    board = Board({"a": 1.0}, terminal)
    for share in (0.1, 0.5, 1.0):
        clock(1)
        board.update("a", share, "words " * 30)
    assert len(lines(terminal)) == 3
    assert {len(line) for line in lines(terminal)} == {min(width - 1, len(max(lines(terminal), key=len)))}
    assert "\n" not in terminal.getvalue()


def test_redraws_are_five_a_second_at_most_and_the_last_one_always(clock, columns):
    columns(80)
    terminal = Terminal()
    board = Board({"a": 1.0}, terminal)
    for share in range(1, 100):
        clock(0.01)
        board.update("a", share / 100)
    assert 3 <= len(lines(terminal)) <= 6
    board.update("a", 1.0)
    assert "100 %" in lines(terminal)[-1]


def test_said_lines_stand_above_the_progress_line(clock, columns, capsys):
    columns(80)
    terminal = Terminal()
    board = Board({"a": 1.0, "b": 1.0}, terminal)
    board.update("a", 0.5)
    board.say("a is done")
    assert terminal.getvalue().endswith(CLEAR)
    assert capsys.readouterr().out == "a is done\n"
    board.close()
    assert re.search(r"\x1b\[2K$", terminal.getvalue())


def test_threads_share_a_board(columns):
    columns(80)
    board = Board({str(i): 1.0 for i in range(8)}, Terminal())
    work = lambda item: [board.update(item, share / 50) for share in range(51)]
    threads = [threading.Thread(target=work, args=(item,)) for item in board.work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert board.done == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (41.6, "42 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3725, "62 min 05 s")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
