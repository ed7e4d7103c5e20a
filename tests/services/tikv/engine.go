package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/lockstore"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
	"github.com/pingcap/tidb/pkg/util/codec"
	pd "github.com/tikv/pd/client"

	"oomstream.test/tikv/locklog"
)

const (
	clusterID = 1
	// lockArenaSize must exceed the largest value that can be prewritten (store.go), or the engine panics.
	lockArenaSize = 2 * raftEntryMaxSize
)

// firstKey stands for the empty key in look-ups: the engine takes the empty one for the end of the last region. It is
// below every encoded key.
var firstKey = []byte{0}

// engine is one TiKV store: Percolator transactions on badger, and the regions it is cut into.
type engine struct {
	*tikv.Server
	regions   *tikv.MockRegionManager
	pd        *tikv.MockPD
	safePoint safePointFile

	splitting sync.Mutex
}

// openEngine opens the store in dir and makes its first region if there is none yet.
func openEngine(dir string) (*engine, error) {
	safePoint, err := openSafePoint(filepath.Join(dir, "gc_safe_point"))
	if err != nil {
		return nil, err
	}
	gc := &tikv.SafePoint{}
	conf := config.DefaultConf
	conf.Engine.DBPath = dir
	db, err := openDB(&conf.Engine, gc)
	if err != nil {
		return nil, fmt.Errorf("open the store in %s: %w", dir, err)
	}
	physical, logical := tikv.GetTS()
	bundle := &mvcc.DBBundle{
		DB:        db,
		LockStore: lockstore.NewMemStore(lockArenaSize),
		StateTS:   uint64(physical)<<18 + uint64(logical),
	}
	writer, err := locklog.Open(bundle, dir)
	if err != nil {
		return nil, err
	}
	regions, err := tikv.NewMockRegionManager(bundle, clusterID, tikv.RegionOptions{RegionSize: conf.Server.RegionSize})
	if err != nil {
		return nil, err
	}
	e := &engine{regions: regions, pd: tikv.NewMockPD(regions), safePoint: safePoint}
	inner := tikv.NewStandAlongInnerServer(bundle)
	store := tikv.NewMVCCStore(&conf, bundle, dir, gc, writer, e.pd)
	store.DeadlockDetectSvr.ChangeRole(tikv.Leader)
	store.StartDeadlockDetection(false)
	e.Server = tikv.NewServer(regions, store, inner)
	return e, e.bootstrap()
}

func openDB(conf *config.Engine, gc *tikv.SafePoint) (*badger.DB, error) {
	opts := badger.DefaultOptions
	opts.Dir = filepath.Join(conf.DBPath, "kv")
	opts.ValueDir = opts.Dir
	opts.ManagedTxns = true
	opts.ValueThreshold = 0
	opts.ValueLogFileSize = conf.VlogFileSize
	opts.ValueLogMaxNumFiles = 3
	opts.MaxMemTableSize = conf.MaxMemTableSize
	opts.NumMemtables = conf.NumMemTables
	opts.NumCompactors = 1
	opts.SyncWrites = false
	opts.CompactL0WhenClose = false
	opts.CompactionFilterFactory = gc.CreateCompactionFilter
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, err
	}
	return badger.Open(opts)
}

// bootstrap makes one store with one region over all keys; the addresses are PD's to tell (pdServer).
func (e *engine) bootstrap() error {
	done, err := e.regions.IsBootstrapped()
	if err != nil || done {
		return err
	}
	storeID, regionID, peerID := e.regions.AllocID(), e.regions.AllocID(), e.regions.AllocID()
	return e.regions.Bootstrap(
		[]*metapb.Store{{Id: storeID, Version: "8.5.4"}},
		&metapb.Region{
			Id:          regionID,
			RegionEpoch: &metapb.RegionEpoch{},
			Peers:       []*metapb.Peer{{Id: peerID, StoreId: storeID}},
		},
	)
}

// split cuts the region that holds key (as clients write it) so that key starts a region, and returns that region.
func (e *engine) split(key []byte) (*metapb.Region, error) {
	if len(key) == 0 {
		return nil, fmt.Errorf("a region cannot be split at the empty key: the first region starts there")
	}
	e.splitting.Lock()
	defer e.splitting.Unlock()
	encoded := codec.EncodeBytes(nil, key)
	region, _, _, _ := e.regions.GetRegionByKey(encoded)
	if region == nil {
		return nil, fmt.Errorf("no region holds the key %q", key)
	}
	if string(region.StartKey) == string(encoded) {
		return region, nil
	}
	newRegion, newPeer := e.regions.AllocID(), e.regions.AllocID()
	return e.regions.SplitRaw(region.Id, newRegion, encoded, []uint64{newPeer}, newPeer), nil
}

// regionsFrom lists the regions that hold keys from start (encoded, empty for the first) to end (encoded, empty for
// all), at most limit of them (0 for all).
func (e *engine) regionsFrom(start, end []byte, limit int) []*pd.Region {
	if len(start) == 0 {
		start = firstKey
	}
	return e.regions.ScanRegions(start, end, limit)
}

// advanceSafePoint moves the GC safe point forwards, never back, and returns the one that holds now.
func (e *engine) advanceSafePoint(to uint64) (uint64, error) {
	now, err := e.safePoint.advance(to)
	if err != nil {
		return 0, err
	}
	// Real TiKV asks PD for the safe point every few seconds; here it is told at once.
	_, err = e.KvGC(context.Background(), &kvrpcpb.GCRequest{Context: &kvrpcpb.Context{}, SafePoint: now})
	return now, err
}
