def double(x):
    """Return x times two.

    >>> double(2)
    4
    >>> double(5)
    10
    """
