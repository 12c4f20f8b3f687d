"""Speed and accuracy tables: `python -m infojax.bench NAME [--json FILE]`."""
