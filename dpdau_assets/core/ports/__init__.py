"""What core needs from outside, as protocols; `resources/` implements them, tests may hand in others.

The values that they speak of are in `facts`.
"""
