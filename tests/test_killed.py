"""kill -9 at random moments of the command; `killed.py` repeats it as often as you like."""

import killed


def test_kill_minus_nine_at_random_moments(tmp_path):
    """The same command continues, to the rows and bits of a run that nobody killed; nothing ends in a traceback."""
    found = killed.drill(tmp_path, kills=4, life=3)
    assert found["runs"] >= 2 and found["rows"] == 26 and found["damaged"] == 0
