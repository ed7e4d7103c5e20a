package main

import (
	"context"
	"path"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// server is a gRPC server whose calls are subject to the faults.
func (t *faults) server() *grpc.Server {
	return grpc.NewServer(
		grpc.ChainUnaryInterceptor(t.unary, recovered),
		grpc.ChainStreamInterceptor(t.stream),
		// tikv-client pings every 10 s, which gRPC's default takes for abuse and answers by closing the connection.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		// Real TiKV takes any size; entries over 8 MiB are refused further in (store.go).
		grpc.MaxRecvMsgSize(1<<30),
	)
}

// learn makes the names of a server's calls known.
func (t *faults) learn(server *grpc.Server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, service := range server.GetServiceInfo() {
		for _, method := range service.Methods {
			t.known[method.Name] = true
		}
	}
}

func refused(call string) error {
	return status.Errorf(codes.Unavailable, "%s refused on request", call)
}

func (t *faults) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	call := path.Base(info.FullMethod)
	hit, found := t.take(call)
	if !found {
		return handler(ctx, request)
	}
	switch hit.Kind {
	case refuse:
		return nil, refused(call)
	case delay:
		if err := sleep(ctx, hit.DelayMS); err != nil {
			return nil, err
		}
		return handler(ctx, request)
	case noLeader:
		answer, err := handler(ctx, request)
		if found, ok := answer.(*pdpb.GetRegionResponse); ok {
			found.Leader = nil
		}
		return answer, err
	case dropAnswer:
		// The call goes on even when its caller has given up: that is what makes its outcome unknown.
		_, _ = handler(context.WithoutCancel(ctx), request)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// recovered turns the engine's panic on a call that it does not implement into an answer.
func recovered(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (answer any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			answer, err = nil, status.Errorf(codes.Internal, "%s failed: %v", info.FullMethod, cause)
		}
	}()
	return handler(ctx, request)
}

func (t *faults) stream(
	server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return handler(server, &faultyStream{ServerStream: stream, faults: t, call: path.Base(info.FullMethod)})
}

// faultyStream takes each message received as one call, as Tso's clients mean it.
type faultyStream struct {
	grpc.ServerStream

	faults *faults
	call   string
	muted  int
}

// RecvMsg receives the next message that a fault does not take away.
func (s *faultyStream) RecvMsg(message any) error {
	for {
		if err := s.ServerStream.RecvMsg(message); err != nil {
			return err
		}
		hit, found := s.faults.take(s.call)
		if !found {
			return nil
		}
		switch hit.Kind {
		case refuse:
			return refused(s.call)
		case delay:
			return sleep(s.Context(), hit.DelayMS)
		case dropAnswer:
			s.muted++
			return nil
		}
	}
}

// SendMsg sends an answer, unless it is one to be dropped.
func (s *faultyStream) SendMsg(message any) error {
	if s.muted > 0 {
		s.muted--
		return nil
	}
	return s.ServerStream.SendMsg(message)
}
