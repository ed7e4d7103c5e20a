package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
)

// safePointFile is PD's GC safe point, kept over a restart.
type safePointFile struct {
	path string
	mu   *sync.Mutex
	now  *uint64
}

func openSafePoint(path string) (safePointFile, error) {
	f := safePointFile{path: path, mu: new(sync.Mutex), now: new(uint64)}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	*f.now, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return f, err
}

func (f safePointFile) get() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.now
}

func (f safePointFile) advance(to uint64) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to <= *f.now {
		return *f.now, nil
	}
	next := f.path + ".new"
	if err := os.WriteFile(next, []byte(strconv.FormatUint(to, 10)), 0o600); err != nil {
		return 0, err
	}
	if err := os.Rename(next, f.path); err != nil {
		return 0, err
	}
	*f.now = to
	return to, nil
}
