package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// A committed value is read, a deleted one is not, and a rolled back one never was.
func TestTransaction(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	c.put("k", "v1")
	c.expect("k", "v1")
	if c.get("k").NotFound {
		t.Fatal("a value that is there is said not to be")
	}
	c.put("k", "")
	if !c.get("k").NotFound {
		t.Fatal("a deleted value is not said to be gone")
	}

	startTS := c.timestamp()
	c.prewrite(startTS, "k", "v2", "k")
	if locked := c.get("k"); locked.Error.GetLocked() == nil {
		t.Fatalf("a prewritten key is not locked: %v", locked)
	}
	_, err := c.kv.KvBatchRollback(deadline(t), &kvrpcpb.BatchRollbackRequest{
		Context: c.route("k"), Keys: [][]byte{[]byte("k")}, StartVersion: startTS,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.expect("k", "")
}

// The later of two transactions that read the same key and write it gets a write conflict.
func TestWriteConflict(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	older := c.timestamp()
	c.put("k", "newer")
	got := c.prewrite(older, "k", "older", "k")
	if len(got.Errors) != 1 || got.Errors[0].Conflict == nil {
		t.Fatalf("no write conflict: %v", got)
	}
	c.expect("k", "newer")
}

// Values, regions and the GC safe point are there after a restart.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	c := startCluster(t, dir, addresses{})
	c.put("k", "v")
	if _, err := c.engine.split([]byte("m")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.engine.advanceSafePoint(42); err != nil {
		t.Fatal(err)
	}
	c.stop()

	c = startCluster(t, dir, addresses{})
	c.expect("k", "v")
	c.put("z", "v")
	if n := len(c.engine.regionsFrom(nil, nil, 0)); n != 2 {
		t.Fatalf("%d regions after the restart, want 2", n)
	}
	if now := c.engine.safePoint.get(); now != 42 {
		t.Fatalf("the safe point is %d after the restart, want 42", now)
	}
}

// A server killed between the commits of a transaction's two keys still has the second one's value when it comes back.
func TestCrashInMidCommit(t *testing.T) {
	dir := t.TempDir()
	c := startCluster(t, dir, addresses{})
	c.put("b", "old")
	startTS := c.timestamp()
	c.prewrite(startTS, "a", "new", "a")
	c.prewrite(startTS, "b", "new", "a")
	c.commit(startTS, "a")

	c = startCluster(t, copyFolder(t, dir), addresses{})
	c.expect("a", "new")
	if locked := c.get("b").Error.GetLocked(); locked == nil || locked.LockVersion != startTS {
		t.Fatalf("the lock of b is gone: %v", locked)
	}
	c.commit(startTS, "b")
	c.expect("b", "new")
}

// Locks that were removed before a crash do not come back after it.
func TestCrashAfterCommit(t *testing.T) {
	dir := t.TempDir()
	c := startCluster(t, dir, addresses{})
	c.put("a", "1")
	c.put("a", "2")
	c = startCluster(t, copyFolder(t, dir), addresses{})
	c.expect("a", "2")
}

// The log of locks is emptied now and then, and nothing is lost by it.
func TestLockLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	c := startCluster(t, dir, addresses{})
	for range 3 {
		c.put("k", strings.Repeat("x", 7<<20))
	}
	file, err := os.Stat(filepath.Join(dir, "locks.log"))
	if err != nil || file.Size() > 8<<20 {
		t.Fatalf("got %v, %v", file, err)
	}
	c.put("k", "v")
	c = startCluster(t, copyFolder(t, dir), addresses{})
	c.expect("k", "v")
}

// A write of more than 8 MiB to one region is refused as real TiKV refuses it.
func TestEntryTooLarge(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	got := c.prewrite(c.timestamp(), "k", strings.Repeat("x", raftEntryMaxSize), "k")
	if got.RegionError.GetRaftEntryTooLarge() == nil {
		t.Fatalf("not refused: %v", got.RegionError)
	}
	c.put("k", strings.Repeat("x", raftEntryMaxSize-1))
}

// A call that the engine does not implement is an error, not the end of the server.
func TestUnimplemented(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	if _, err := c.kv.RawCompareAndSwap(deadline(t), &kvrpcpb.RawCASRequest{}); err == nil {
		t.Fatal("no error")
	}
	c.put("k", "v")
}
