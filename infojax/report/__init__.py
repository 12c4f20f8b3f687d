"""Draws and tabulates results: text tables, figures, and one self-contained HTML page.

`tables` and `figures` show a single report, `page` combines both, and `runs` draws run folders. `tables` needs only
NumPy (and rich for `rich_table`); the others load matplotlib. Import the module you need: this file stays empty so
that `import infojax` never pays for drawing.
"""
