"""Feature files: their formats, reading them in blocks, and which of their arrays is which.

This file stays empty: each module is imported by its name.
"""
