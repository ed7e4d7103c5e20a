package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// kind is what a fault does to a call.
type kind string

const (
	// refuse answers with an error at once; the call is not carried out.
	refuse kind = "refuse"
	// delay carries the call out after a time.
	delay kind = "delay"
	// drop never answers; the call is not carried out.
	drop kind = "drop"
	// dropAnswer carries the call out and never answers.
	dropAnswer kind = "drop-answer"
	// noLeader carries a PD call out and leaves the region's leader out of the answer, as PD does after a restart.
	noLeader kind = "no-leader"
)

var kinds = []kind{refuse, delay, drop, dropAnswer, noLeader}

// fault is what happens to the next calls of one RPC.
type fault struct {
	ID   int    `json:"id"`
	Call string `json:"call"`
	Kind kind   `json:"kind"`
	// Times is how many calls it hits; 0 is until it is cleared.
	Times int `json:"times"`
	// DelayMS is the delay in milliseconds, for the kind delay.
	DelayMS int `json:"delay_ms"`
	// Hits is how many calls it has hit.
	Hits int `json:"hits"`
}

// faults are the faults on request, and the counts of all calls. A call is hit by the oldest fault that is not used up.
type faults struct {
	mu    sync.Mutex
	known map[string]bool
	list  []*fault
	last  int
	calls map[string]int
	// changed is closed, and made anew, when a fault hits or a call is counted.
	changed chan struct{}
}

func newFaults() *faults {
	return &faults{known: map[string]bool{}, calls: map[string]int{}, changed: make(chan struct{})}
}

// add puts a fault in force and returns it with its id.
func (t *faults) add(f fault) (fault, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known[f.Call] {
		return f, fmt.Errorf("no call is named %q; KvGet, KvPrewrite, KvCommit, Tso, GetRegion… are", f.Call)
	}
	switch {
	case f.Kind == delay && f.DelayMS <= 0:
		return f, fmt.Errorf("a delay needs delay_ms above 0")
	case !slices.Contains(kinds, f.Kind):
		return f, fmt.Errorf("no fault is named %q; there are %q", f.Kind, kinds)
	case f.Times < 0:
		return f, fmt.Errorf("times must be 0 (until cleared) or more")
	}
	t.last++
	f.ID, f.Hits = t.last, 0
	t.list = append(t.list, &f)
	return f, nil
}

// clear ends all faults. Calls that were dropped stay unanswered.
func (t *faults) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = nil
}

// take counts a call and returns the fault that hits it, if any.
func (t *faults) take(call string) (hit fault, found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[call]++
	close(t.changed)
	t.changed = make(chan struct{})
	for _, f := range t.list {
		if f.Call == call && (f.Times == 0 || f.Hits < f.Times) {
			f.Hits++
			return *f, true
		}
	}
	return fault{}, false
}

// wait returns the fault once it has hit as many calls as asked for, or at the end of ctx.
func (t *faults) wait(ctx context.Context, id, hits int) (fault, error) {
	for {
		t.mu.Lock()
		at := slices.IndexFunc(t.list, func(f *fault) bool { return f.ID == id })
		if at < 0 {
			t.mu.Unlock()
			return fault{}, fmt.Errorf("no fault has the id %d", id)
		}
		now, changed := *t.list[at], t.changed
		t.mu.Unlock()
		if now.Hits >= hits {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, fmt.Errorf("%s was called %d times, not %d: %w", now.Call, now.Hits, hits, ctx.Err())
		}
	}
}

// counts tells how often each RPC was called since the start.
func (t *faults) counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.calls)
}

// sleep waits, or ends early with the call.
func sleep(ctx context.Context, milliseconds int) error {
	timer := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
