package locklog

import (
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

type rpcContext = kvrpcpb.Context

// batch is the engine's batch, with its changes of locks as log records.
type batch struct {
	mvcc.WriteBatch

	puts, deletes []byte
	put, deleted  []string
}

// Prewrite implements mvcc.WriteBatch.
func (b *batch) Prewrite(key []byte, lock *mvcc.Lock) {
	b.lock(key, lock)
	b.WriteBatch.Prewrite(key, lock)
}

// PessimisticLock implements mvcc.WriteBatch.
func (b *batch) PessimisticLock(key []byte, lock *mvcc.Lock) {
	b.lock(key, lock)
	b.WriteBatch.PessimisticLock(key, lock)
}

// Commit implements mvcc.WriteBatch.
func (b *batch) Commit(key []byte, lock *mvcc.Lock) {
	b.unlock(key)
	b.WriteBatch.Commit(key, lock)
}

// Rollback implements mvcc.WriteBatch.
func (b *batch) Rollback(key []byte, deleteLock bool) {
	if deleteLock {
		b.unlock(key)
	}
	b.WriteBatch.Rollback(key, deleteLock)
}

// PessimisticRollback implements mvcc.WriteBatch.
func (b *batch) PessimisticRollback(key []byte) {
	b.unlock(key)
	b.WriteBatch.PessimisticRollback(key)
}

func (b *batch) lock(key []byte, lock *mvcc.Lock) {
	b.puts = appendRecord(b.puts, opPut, key, lock.MarshalBinary())
	b.put = append(b.put, string(key))
}

func (b *batch) unlock(key []byte) {
	b.deletes = appendRecord(b.deletes, opDelete, key, nil)
	b.deleted = append(b.deleted, string(key))
}
