"""Feature files: their formats, reading them in blocks, and finding the roles of their arrays.

This file stays empty: import each module by its name.
"""
