package main

import (
	"sync"
	"testing"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// Timestamps are never handed out twice, also when clients ask for several at a time and at once.
func TestTimestamps(t *testing.T) {
	tso := &timestamps{}
	const clients, rounds, count = 4, 500, 16
	got := make(chan [2]int64, clients*rounds)
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range rounds {
				physical, logical := tso.allocate(count)
				got <- [2]int64{physical, logical}
			}
		}()
	}
	wg.Wait()
	close(got)
	seen := map[[2]int64]bool{}
	for last := range got {
		for i := range int64(count) {
			one := [2]int64{last[0], last[1] - i}
			if one[1] < 0 || seen[one] {
				t.Fatalf("timestamp %v is negative or handed out twice", one)
			}
			seen[one] = true
		}
	}
}

// The second PD tells the addresses it was given, those of proxies; the first one tells its own.
func TestAdvertisedAddresses(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{advertisedPD: "127.0.0.1:1", advertisedStore: "127.0.0.1:2"})
	for _, want := range []struct {
		client    pdpb.PDClient
		pd, store string
	}{
		{c.pd, c.addresses.pd, c.store},
		{pdpb.NewPDClient(dial(t, c.proxiedPD)), "127.0.0.1:1", "127.0.0.1:2"},
	} {
		members, err := want.client.GetMembers(deadline(t), &pdpb.GetMembersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := members.Leader.ClientUrls[0]; got != "http://"+want.pd {
			t.Errorf("PD calls itself %s, want http://%s", got, want.pd)
		}
		stores, err := want.client.GetAllStores(deadline(t), &pdpb.GetAllStoresRequest{})
		if err != nil {
			t.Fatal(err)
		}
		one, err := want.client.GetStore(deadline(t), &pdpb.GetStoreRequest{StoreId: stores.Stores[0].Id})
		if err != nil {
			t.Fatal(err)
		}
		if one.Store.Address != want.store || stores.Stores[0].Address != want.store {
			t.Errorf("the store is at %s and %s, want %s", one.Store.Address, stores.Stores[0].Address, want.store)
		}
	}
}

// A store that does not exist is an error in the answer's header.
func TestUnknownStore(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	got, err := c.pd.GetStore(deadline(t), &pdpb.GetStoreRequest{StoreId: 99})
	if err != nil || got.Header.Error == nil {
		t.Fatalf("got %v, %v", got, err)
	}
}

// The empty key, where a scan of everything starts, is in the first region, the only one included.
func TestFirstRegion(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	for _, regions := range []int{1, 2} {
		got, err := c.pd.GetRegion(deadline(t), &pdpb.GetRegionRequest{})
		if err != nil || got.Region == nil || len(got.Region.StartKey) != 0 {
			t.Fatalf("got %v, %v", got, err)
		}
		scanned, err := c.pd.ScanRegions(deadline(t), &pdpb.ScanRegionsRequest{})
		if err != nil || len(scanned.Regions) != regions {
			t.Fatalf("got %v, %v", scanned, err)
		}
		if _, err := c.engine.split([]byte("m")); err != nil {
			t.Fatal(err)
		}
	}
}

// The GC safe point moves forwards only.
func TestSafePoint(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	for _, step := range []struct{ ask, want uint64 }{{10, 10}, {5, 10}, {11, 11}} {
		got, err := c.pd.UpdateGCSafePoint(deadline(t), &pdpb.UpdateGCSafePointRequest{SafePoint: step.ask})
		if err != nil || got.NewSafePoint != step.want {
			t.Fatalf("asked for %d: got %v, %v", step.ask, got, err)
		}
	}
	got, err := c.pd.GetGCSafePoint(deadline(t), &pdpb.GetGCSafePointRequest{})
	if err != nil || got.SafePoint != 11 {
		t.Fatalf("got %v, %v", got, err)
	}
}

// After a split, both regions are found by key, by id and in order, and a call with the old epoch is sent back.
func TestSplit(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	old := c.route("z")
	c.put("z", "v")
	made, err := c.engine.split([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.engine.split([]byte("m"))
	if err != nil || again.Id != made.Id {
		t.Fatalf("a split at an edge made region %v (%v), want %d", again, err, made.Id)
	}
	if c.route("a").RegionId == c.route("z").RegionId || c.route("m").RegionId != made.Id {
		t.Fatal("the key m does not start a region")
	}
	c.expect("z", "v")

	scanned, err := c.pd.ScanRegions(deadline(t), &pdpb.ScanRegionsRequest{Limit: 10})
	if err != nil || len(scanned.Regions) != 2 || scanned.Regions[1].Region.Id != made.Id {
		t.Fatalf("got %v, %v", scanned, err)
	}
	byID, err := c.pd.GetRegionByID(deadline(t), &pdpb.GetRegionByIDRequest{RegionId: made.Id})
	if err != nil || byID.Leader == nil || string(byID.Region.StartKey) != string(made.StartKey) {
		t.Fatalf("got %v, %v", byID, err)
	}
	stale := c.getWith(old, "z")
	if stale.RegionError.GetEpochNotMatch() == nil {
		t.Fatalf("a call with the old epoch was taken: %v", stale)
	}
}
