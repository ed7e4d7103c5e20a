package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (c *cluster) getWith(route *kvrpcpb.Context, key string) *kvrpcpb.GetResponse {
	c.t.Helper()
	got, err := c.tryGet(deadline(c.t), route, key)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func (c *cluster) tryGet(ctx context.Context, route *kvrpcpb.Context, key string) (*kvrpcpb.GetResponse, error) {
	return c.kv.KvGet(ctx, &kvrpcpb.GetRequest{Context: route, Key: []byte(key), Version: c.timestamp()})
}

func (c *cluster) fault(f fault) fault {
	c.t.Helper()
	added, err := c.faults.add(f)
	if err != nil {
		c.t.Fatal(err)
	}
	return added
}

// A refused call is an error at once, the next N times and no more.
func TestRefuse(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	c.fault(fault{Call: "KvGet", Kind: refuse, Times: 2})
	route := c.route("k")
	for range 2 {
		if _, err := c.tryGet(deadline(t), route, "k"); status.Code(err) != codes.Unavailable {
			t.Fatalf("not refused: %v", err)
		}
	}
	c.expect("k", "")
}

// A fault without a number of times lasts until it is cleared.
func TestClear(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	c.fault(fault{Call: "KvGet", Kind: refuse})
	route := c.route("k")
	for range 5 {
		if _, err := c.tryGet(deadline(t), route, "k"); err == nil {
			t.Fatal("not refused")
		}
	}
	c.faults.clear()
	c.expect("k", "")
}

// A dropped commit gets no answer and is not carried out; one whose answer is dropped is carried out.
func TestDrop(t *testing.T) {
	for kind, want := range map[kind]string{drop: "old", dropAnswer: "new"} {
		t.Run(string(kind), func(t *testing.T) {
			c := startCluster(t, t.TempDir(), addresses{})
			c.put("k", "old")
			startTS := c.timestamp()
			c.prewrite(startTS, "k", "new", "k")
			request := &kvrpcpb.CommitRequest{
				Context: c.route("k"), Keys: [][]byte{[]byte("k")}, StartVersion: startTS, CommitVersion: c.timestamp(),
			}
			dropped := c.fault(fault{Call: "KvCommit", Kind: kind, Times: 1})
			ctx, giveUp := context.WithCancel(deadline(t))
			answered := make(chan error, 1)
			go func() {
				_, err := c.kv.KvCommit(ctx, request)
				answered <- err
			}()
			if _, err := c.faults.wait(deadline(t), dropped.ID, 1); err != nil {
				t.Fatal(err)
			}
			if kind == dropAnswer {
				// Carried out when the lock is gone.
				for c.get("k").Error.GetLocked() != nil {
					time.Sleep(time.Millisecond)
				}
			}
			giveUp()
			if err := <-answered; status.Code(err) != codes.Canceled {
				t.Fatalf("answered: %v", err)
			}
			if kind == drop {
				if c.get("k").Error.GetLocked() == nil {
					t.Fatal("carried out")
				}
				return
			}
			c.expect("k", want)
		})
	}
}

// A delayed call is carried out after the delay, not before.
func TestDelay(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	c.fault(fault{Call: "KvGet", Kind: delay, DelayMS: 50, Times: 1})
	route, began := c.route("k"), time.Now()
	c.getWith(route, "k")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Fatalf("answered after %v", took)
	}
}

// Each message of a stream is a call: a dropped timestamp request leaves the next one its answer.
func TestDropTimestamp(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	for _, kind := range []kind{drop, dropAnswer} {
		c.fault(fault{Call: "Tso", Kind: kind, Times: 1})
		stream, err := c.pd.Tso(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, count := range []uint32{1, 2} {
			if err := stream.Send(&pdpb.TsoRequest{Count: count}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := stream.Recv(); err != nil || got.Count != 2 {
			t.Fatalf("%s: got %v, %v", kind, got, err)
		}
	}
	c.fault(fault{Call: "Tso", Kind: refuse, Times: 1})
	stream, err := c.pd.Tso(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pdpb.TsoRequest{Count: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("not refused: %v", err)
	}
}

// A region without a leader is told as PD tells it just after a restart.
func TestNoLeader(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	c.fault(fault{Call: "GetRegion", Kind: noLeader, Times: 1})
	got, err := c.pd.GetRegion(deadline(t), &pdpb.GetRegionRequest{})
	if err != nil || got.Region == nil || got.Leader != nil {
		t.Fatalf("got %v, %v", got, err)
	}
}

// A fault that cannot be is refused with a sentence; waiting for too many hits ends with how many there were.
func TestFaultErrors(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	for _, wrong := range []fault{
		{Call: "Nope", Kind: drop},
		{Call: "KvGet", Kind: "nope"},
		{Call: "KvGet", Kind: delay},
		{Call: "KvGet", Kind: drop, Times: -1},
	} {
		if _, err := c.faults.add(wrong); err == nil {
			t.Errorf("%v was taken", wrong)
		}
	}
	if _, err := c.faults.wait(deadline(t), 99, 1); err == nil {
		t.Error("waited for a fault that does not exist")
	}
	added := c.fault(fault{Call: "KvGet", Kind: drop})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if now, err := c.faults.wait(ctx, added.ID, 1); !errors.Is(err, context.Canceled) || now.Hits != 0 {
		t.Errorf("got %v, %v", now, err)
	}
}
