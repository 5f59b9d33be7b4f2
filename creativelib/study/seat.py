"""A seat in a study: what rating and choosing between pairs have in common. Knows nothing of widgets or pages."""


class Seat:
    """One person at a time in a study that several share: ``store`` keeps what they give; ``code`` is who sits there and
    ``session`` theirs in the store, both ``None`` before somebody joins.
    """

    code = session = None

    def leave(self) -> None:
        """Let somebody else sit down; nothing is lost."""
        self.code = self.session = None

    def withdraw(self) -> None:
        """Delete who sits here, with all that they gave. Raises ValueError before ``join``."""
        self._joined()
        self.store.delete_rater(self.code)
        self.leave()

    def _joined(self) -> str:
        if self.session is None:
            raise ValueError("session: nobody has joined; call join(code, consent=True) first")
        return self.session
