"""What every history store must do: finding events by identity, and taking in dead letters that were replayed."""

from __future__ import annotations

from oomstream.stores.base import HistoryStore
from oomstream.stores.testing.history_suite import HistorySuite, append, register, topic
from oomstream.stores.testing.samples import event, group
from oomstream.stores.testing.suite import Run


class ReplayTests(HistorySuite):
    """Identities, and replays."""

    def test_identities_in_history(self, opened: HistoryStore, run: Run) -> None:
        """Of thousands of sequences of one source, those are told that have a row in the group's history."""

        async def check() -> None:
            mine, other = await register(opened, group(), group("other"))
            source, second = await opened.claim(topic()), await opened.claim(topic(partition=1))
            await append(opened, source, mine, *(event(at, f"{at}") for at in range(0, 6_000, 2)))
            await append(opened, second, mine, event(1), event(7))
            await append(opened, source, other, event(7_001))
            found = await opened.identities_in_history(mine, source.id, range(5_999, -1, -1))
            assert found == set(range(0, 6_000, 2))
            assert await opened.identities_in_history(mine, second.id, [7, 6, 7]) == {7}
            assert await opened.identities_in_history(mine, source.id, []) == set()
            assert await opened.identities_in_history(mine, source.id, [7_001]) == set()
            assert await opened.identities_in_history(mine, 99, [1, 7]) == set()

        run(check())
