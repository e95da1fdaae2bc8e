"""A clock for whatever takes one."""


class Clock:
    """Epoch seconds that stand still until a test moves them on."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds
