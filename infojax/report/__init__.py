"""Reports made visible: tables of text, figures, and one self-contained HTML page.

`tables` and `fragment` need NumPy alone (and rich for `rich_table`); the others load matplotlib. Import
the module you need: this file stays empty so that `import infojax` never pays for drawing.
"""
