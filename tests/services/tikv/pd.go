package main

import (
	"context"
	"errors"
	"io"
	"sort"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	pd "github.com/tikv/pd/client"
)

// pdServer answers the calls that a client makes of the Placement Driver. It tells the addresses it is given, which may
// be those of a proxy; two of them can serve one engine, so that one way in goes through a proxy and one does not.
type pdServer struct {
	pdpb.UnimplementedPDServer

	engine *engine
	tso    *timestamps
	// address is this PD's own, storeAddress that of the store, both as clients are to dial them.
	address, storeAddress string
}

func (s *pdServer) header() *pdpb.ResponseHeader {
	return &pdpb.ResponseHeader{ClusterId: clusterID}
}

// GetMembers names this PD as the one member and leader.
func (s *pdServer) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	url := "http://" + s.address
	self := &pdpb.Member{Name: "pd", MemberId: 1, PeerUrls: []string{url}, ClientUrls: []string{url}}
	return &pdpb.GetMembersResponse{
		Header: s.header(), Members: []*pdpb.Member{self}, Leader: self, EtcdLeader: self,
	}, nil
}

// Tso hands out timestamps; one answer stands for the count ones that end with it.
func (s *pdServer) Tso(stream pdpb.PD_TsoServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		physical, logical := s.tso.allocate(request.Count)
		answer := &pdpb.TsoResponse{
			Header: s.header(), Count: request.Count,
			Timestamp: &pdpb.Timestamp{Physical: physical, Logical: logical},
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// IsBootstrapped is always true: the engine bootstraps itself.
func (s *pdServer) IsBootstrapped(
	context.Context, *pdpb.IsBootstrappedRequest,
) (*pdpb.IsBootstrappedResponse, error) {
	return &pdpb.IsBootstrappedResponse{Header: s.header(), Bootstrapped: true}, nil
}

// GetRegion finds the region that holds a key (encoded).
func (s *pdServer) GetRegion(_ context.Context, request *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return s.regionAnswer(s.engine.regionsFrom(request.RegionKey, nil, 1)[0], nil)
}

// GetPrevRegion finds the region that ends at or holds a key (encoded).
func (s *pdServer) GetPrevRegion(ctx context.Context, request *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	region, err := s.engine.pd.GetPrevRegion(ctx, request.RegionKey)
	return s.regionAnswer(region, err)
}

// GetRegionByID finds a region by its id.
func (s *pdServer) GetRegionByID(
	ctx context.Context, request *pdpb.GetRegionByIDRequest,
) (*pdpb.GetRegionResponse, error) {
	region, err := s.engine.pd.GetRegionByID(ctx, request.RegionId)
	return s.regionAnswer(region, err)
}

func (s *pdServer) regionAnswer(region *pd.Region, err error) (*pdpb.GetRegionResponse, error) {
	if err != nil {
		return nil, err
	}
	answer := &pdpb.GetRegionResponse{Header: s.header()}
	if region != nil {
		answer.Region, answer.Leader = region.Meta, region.Leader
	}
	return answer, nil
}

// ScanRegions lists regions in key order.
func (s *pdServer) ScanRegions(
	_ context.Context, request *pdpb.ScanRegionsRequest,
) (*pdpb.ScanRegionsResponse, error) {
	answer := &pdpb.ScanRegionsResponse{Header: s.header()}
	for _, region := range s.engine.regionsFrom(request.StartKey, request.EndKey, int(request.Limit)) {
		answer.RegionMetas = append(answer.RegionMetas, region.Meta)
		answer.Leaders = append(answer.Leaders, region.Leader)
		answer.Regions = append(answer.Regions, &pdpb.Region{Region: region.Meta, Leader: region.Leader})
	}
	return answer, nil
}

// stores are the engine's stores, with the address that clients are to dial.
func (s *pdServer) stores() []*metapb.Store {
	stores := s.engine.regions.GetAllStores()
	sort.Slice(stores, func(i, j int) bool { return stores[i].Id < stores[j].Id })
	for _, store := range stores {
		store.Address = s.storeAddress
	}
	return stores
}

// GetStore tells where a store is.
func (s *pdServer) GetStore(_ context.Context, request *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	for _, store := range s.stores() {
		if store.Id == request.StoreId {
			return &pdpb.GetStoreResponse{Header: s.header(), Store: store}, nil
		}
	}
	missing := s.header()
	missing.Error = &pdpb.Error{Type: pdpb.ErrorType_UNKNOWN, Message: "no such store"}
	return &pdpb.GetStoreResponse{Header: missing}, nil
}

// GetAllStores tells where all stores are.
func (s *pdServer) GetAllStores(context.Context, *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	return &pdpb.GetAllStoresResponse{Header: s.header(), Stores: s.stores()}, nil
}

// GetGCSafePoint tells the GC safe point.
func (s *pdServer) GetGCSafePoint(context.Context, *pdpb.GetGCSafePointRequest) (*pdpb.GetGCSafePointResponse, error) {
	return &pdpb.GetGCSafePointResponse{Header: s.header(), SafePoint: s.engine.safePoint.get()}, nil
}

// UpdateGCSafePoint moves the GC safe point forwards and tells the one that holds.
func (s *pdServer) UpdateGCSafePoint(
	_ context.Context, request *pdpb.UpdateGCSafePointRequest,
) (*pdpb.UpdateGCSafePointResponse, error) {
	now, err := s.engine.advanceSafePoint(request.SafePoint)
	if err != nil {
		return nil, err
	}
	return &pdpb.UpdateGCSafePointResponse{Header: s.header(), NewSafePoint: now}, nil
}
