"""Measurements: they print figures and assert nothing. `python -m bench` lists them."""
