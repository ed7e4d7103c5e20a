package main

import (
	"sync"

	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
)

// timestamps allocates PD's timestamps from the clock that the engine itself uses, so that no two are ever the same.
type timestamps struct {
	mu sync.Mutex
}

// allocate returns the last of count timestamps that follow one another within one physical time.
func (t *timestamps) allocate(count uint32) (physical, logical int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	physical, logical = tikv.GetTS()
	for got := uint32(1); got < count; got++ {
		nextPhysical, nextLogical := tikv.GetTS()
		if nextPhysical != physical || nextLogical != logical+1 {
			got = 0
		}
		physical, logical = nextPhysical, nextLogical
	}
	return physical, logical
}
