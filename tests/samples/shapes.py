"""Shapes."""
import math
from typing import List

# Pixels.
LIMIT = 10


# Adds up.
@cache
def area(width: int,
         height: int) -> int:  # why
    # first
    """The area."""
    return width * height


class Shape(Base):
    """A shape."""

    def __init__(self, name):
        self.name = name

    @property
    def size(self) -> int:
        def inner():
            pass
        return 1
# after

async def go(): pass
