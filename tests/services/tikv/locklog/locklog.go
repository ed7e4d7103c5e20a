// Package locklog keeps the engine's Percolator locks through a restart.
//
// The engine holds locks (and with them the values of transactions that are being committed) in memory only. A server
// killed after a commit's first key and before its last would lose the rest of a transaction that it has acknowledged,
// which real TiKV never does. So each change of a lock is also written to an append-only file, replayed at start. One
// write call a batch and no fsync: that outlives the process, which is what tests kill, though not the machine.
package locklog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/lockstore"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

const (
	fileName = "locks.log"
	// headerSize is that of one record: operation, key length, value length.
	headerSize = 1 + 4 + 4
	// emptyAbove is the size at which the file is emptied, once no lock is held.
	emptyAbove = 16 << 20
)

const (
	opPut    byte = 'P'
	opDelete byte = 'D'
)

// Writer is the engine's writer with a log of locks beside it.
type Writer struct {
	mvcc.DBWriter

	mu   sync.Mutex
	file *os.File
	size int
	live map[string]struct{}
}

// Open replays the log in dir into the bundle's lock store and returns the writer that goes on with it.
func Open(bundle *mvcc.DBBundle, dir string) (*Writer, error) {
	path := filepath.Join(dir, fileName)
	if err := replay(path, bundle.LockStore); err != nil {
		return nil, fmt.Errorf("replay %s: %w", path, err)
	}
	w := &Writer{DBWriter: tikv.NewDBWriter(bundle), live: map[string]struct{}{}}
	var held []byte
	it := bundle.LockStore.NewIterator()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		held = appendRecord(held, opPut, it.Key(), it.Value())
		w.live[string(it.Key())] = struct{}{}
	}
	// The new file holds only the locks still held, and takes the old one's place in one step.
	if err := os.WriteFile(path+".new", held, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	w.file, w.size = file, len(held)
	return w, nil
}

// Close stops the engine's writer and closes the log.
func (w *Writer) Close() {
	w.DBWriter.Close()
	_ = w.file.Close()
}

// NewWriteBatch returns a batch that remembers which locks it sets and removes.
func (w *Writer) NewWriteBatch(start, commit uint64, ctx *rpcContext) mvcc.WriteBatch {
	return &batch{WriteBatch: w.DBWriter.NewWriteBatch(start, commit, ctx)}
}

// Write logs new locks before the engine takes the batch, removed ones after: a lock that comes back is resolved by its
// transaction's outcome, one that is missing would be lost. The engine holds the latches of the batch's keys meanwhile.
func (w *Writer) Write(b mvcc.WriteBatch) error {
	logged := b.(*batch)
	if err := w.append(logged.puts, logged.put, nil); err != nil {
		return err
	}
	if err := w.DBWriter.Write(logged.WriteBatch); err != nil {
		return err
	}
	return w.append(logged.deletes, nil, logged.deleted)
}

func (w *Writer) append(records []byte, put, deleted []string) error {
	if len(records) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range put {
		w.live[key] = struct{}{}
	}
	for _, key := range deleted {
		delete(w.live, key)
	}
	if len(w.live) == 0 && w.size > emptyAbove {
		w.size = 0
		return w.file.Truncate(0)
	}
	n, err := w.file.Write(records)
	w.size += n
	return err
}

func appendRecord(to []byte, op byte, key, value []byte) []byte {
	to = append(to, op)
	to = binary.BigEndian.AppendUint32(to, uint32(len(key)))
	to = binary.BigEndian.AppendUint32(to, uint32(len(value)))
	return append(append(to, key...), value...)
}

// replay applies the log's records in order. A record cut short is the last one of a killed server, never acknowledged.
func replay(path string, locks *lockstore.MemStore) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	var header [headerSize]byte
	for {
		if _, err := io.ReadFull(reader, header[:]); err != nil {
			return endOfLog(err)
		}
		keySize := binary.BigEndian.Uint32(header[1:])
		body := make([]byte, keySize+binary.BigEndian.Uint32(header[5:]))
		if _, err := io.ReadFull(reader, body); err != nil {
			return endOfLog(err)
		}
		switch header[0] {
		case opPut:
			locks.Put(body[:keySize], body[keySize:])
		case opDelete:
			locks.Delete(body[:keySize])
		default:
			return fmt.Errorf("unknown operation %q", header[0])
		}
	}
}

func endOfLog(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
