package main

import (
	"context"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// raftEntryMaxSize is real TiKV's default for raftstore.raft-entry-max-size.
const raftEntryMaxSize = 8 << 20

// tikvServer is the engine with what real TiKV does beside it.
type tikvServer struct {
	tikvpb.TikvServer
}

// KvGet says that a key is not there. The engine leaves it at an empty value, which clients take for one.
func (s tikvServer) KvGet(ctx context.Context, request *kvrpcpb.GetRequest) (*kvrpcpb.GetResponse, error) {
	answer, err := s.TikvServer.KvGet(ctx, request)
	if err == nil && answer.Error == nil && answer.RegionError == nil && len(answer.Value) == 0 {
		answer.NotFound = true
	}
	return answer, err
}

// KvPrewrite refuses what would be one Raft entry of more than 8 MiB. The engine has no Raft.
func (s tikvServer) KvPrewrite(
	ctx context.Context, request *kvrpcpb.PrewriteRequest,
) (*kvrpcpb.PrewriteResponse, error) {
	size := 0
	for _, mutation := range request.Mutations {
		size += len(mutation.Key) + len(mutation.Value)
	}
	if size <= raftEntryMaxSize {
		return s.TikvServer.KvPrewrite(ctx, request)
	}
	region := request.Context.GetRegionId()
	return &kvrpcpb.PrewriteResponse{RegionError: &errorpb.Error{
		Message:           "raft entry is too large",
		RaftEntryTooLarge: &errorpb.RaftEntryTooLarge{RegionId: region, EntrySize: uint64(size)},
	}}, nil
}
