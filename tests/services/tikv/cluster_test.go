package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/tidb/pkg/util/codec"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// cluster is a server started for one test, and the clients to speak to it.
type cluster struct {
	*server
	t    *testing.T
	pd   pdpb.PDClient
	kv   tikvpb.TikvClient
	stop func()
}

func startCluster(t *testing.T, dir string, at addresses) *cluster {
	t.Helper()
	at.pd, at.proxiedPD, at.store, at.control = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	s, err := start(dir, at)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			s.stop()
		}
	}
	t.Cleanup(stop)
	return &cluster{
		server: s, t: t, stop: stop,
		pd: pdpb.NewPDClient(dial(t, s.addresses.pd)),
		kv: tikvpb.NewTikvClient(dial(t, s.addresses.store)),
	}
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// copyFolder is what a crash leaves: the files as they are while the server still runs.
func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// The lock that says which process has the store open.
	_ = os.Remove(filepath.Join(to, "kv", "LOCK"))
	return to
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// timestamp is one of PD's, as the number that TiKV takes.
func (c *cluster) timestamp() uint64 {
	c.t.Helper()
	stream, err := c.pd.Tso(deadline(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := stream.Send(&pdpb.TsoRequest{Count: 1}); err != nil {
		c.t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	return uint64(got.Timestamp.Physical)<<18 + uint64(got.Timestamp.Logical)
}

// route finds a key's region, as a client does before each call.
func (c *cluster) route(key string) *kvrpcpb.Context {
	c.t.Helper()
	got, err := c.pd.GetRegion(deadline(c.t), &pdpb.GetRegionRequest{RegionKey: codec.EncodeBytes(nil, []byte(key))})
	if err != nil {
		c.t.Fatal(err)
	}
	return contextOf(got.Region, got.Leader)
}

func contextOf(region *metapb.Region, leader *metapb.Peer) *kvrpcpb.Context {
	return &kvrpcpb.Context{RegionId: region.Id, RegionEpoch: region.RegionEpoch, Peer: leader}
}

func (c *cluster) prewrite(startTS uint64, key, value, primary string) *kvrpcpb.PrewriteResponse {
	c.t.Helper()
	mutation := &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: []byte(key), Value: []byte(value)}
	if value == "" {
		mutation.Op = kvrpcpb.Op_Del
	}
	got, err := c.kv.KvPrewrite(deadline(c.t), &kvrpcpb.PrewriteRequest{
		Context: c.route(key), Mutations: []*kvrpcpb.Mutation{mutation},
		PrimaryLock: []byte(primary), StartVersion: startTS, LockTtl: 3000,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func (c *cluster) commit(startTS uint64, key string) *kvrpcpb.CommitResponse {
	c.t.Helper()
	got, err := c.kv.KvCommit(deadline(c.t), &kvrpcpb.CommitRequest{
		Context: c.route(key), Keys: [][]byte{[]byte(key)}, StartVersion: startTS, CommitVersion: c.timestamp(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

// put writes one key in a transaction of its own.
func (c *cluster) put(key, value string) {
	c.t.Helper()
	startTS := c.timestamp()
	if got := c.prewrite(startTS, key, value, key); got.RegionError != nil || len(got.Errors) > 0 {
		c.t.Fatalf("prewrite: %v", got)
	}
	if got := c.commit(startTS, key); got.RegionError != nil || got.Error != nil {
		c.t.Fatalf("commit: %v", got)
	}
}

func (c *cluster) get(key string) *kvrpcpb.GetResponse {
	c.t.Helper()
	got, err := c.kv.KvGet(deadline(c.t), &kvrpcpb.GetRequest{
		Context: c.route(key), Key: []byte(key), Version: c.timestamp(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func (c *cluster) expect(key, value string) {
	c.t.Helper()
	got := c.get(key)
	if got.RegionError != nil || got.Error != nil || string(got.Value) != value {
		c.t.Fatalf("%s is %v, want %q", key, got, value)
	}
}
