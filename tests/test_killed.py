"""kill -9 at random moments of the command; `killed.py` repeats it as often as you like."""

import killed


def test_kill_minus_nine_at_random_moments(tmp_path):
    """The same command continues, to the rows and bits of a run that nobody killed; nothing ends in a traceback."""
    found = killed.drill(tmp_path, kills=5, life=2, flags=["--config.evaluate.points=0"])
    assert found["runs"] >= 2 and found["continued"] and found["rows"] == 20 and found["damaged"] == 0
