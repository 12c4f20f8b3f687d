"""Reports made visible: tables of text, figures, and one self-contained HTML page.

`tables` and `figures` are those of a report, and `page` has both; `runs` draws run folders. `tables` needs NumPy alone
(and rich for `rich_table`), the others load matplotlib. Import the module you need: this file stays empty so that
`import infojax` never pays for drawing.
"""
