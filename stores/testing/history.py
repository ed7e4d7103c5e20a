"""The suite for history stores."""

from __future__ import annotations

from typing import cast

from hypothesis.stateful import run_state_machine_as_test

from oomstream.stores.testing.history_catalog import CatalogTests
from oomstream.stores.testing.history_copies import CopyTests
from oomstream.stores.testing.history_ingest import IngestTests
from oomstream.stores.testing.history_machine import HistoryMachine
from oomstream.stores.testing.history_reads import ReadTests
from oomstream.stores.testing.history_replay import ReplayTests
from oomstream.stores.testing.history_revisions import RevisionTests
from oomstream.stores.testing.history_seeks import SeekTests


class HistoryStoreConformance(CatalogTests, IngestTests, ReadTests, SeekTests, ReplayTests, RevisionTests, CopyTests):
    """What every history store must do; a subclass whose name begins with ``Test`` runs it."""

    def test_any_interleaving(self) -> None:
        """Whatever two clients do in whatever order, the store equals a list of rows and a dict of positions."""
        machine = cast("type[HistoryMachine]", lambda: HistoryMachine(self.new_place(), self.store))
        run_state_machine_as_test(machine, settings=self.machine_settings)
