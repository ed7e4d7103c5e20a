package main

import (
	"net"
	"net/http"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// addresses are where the server listens, and what it tells the clients of its second PD to dial.
type addresses struct {
	pd, store, control, proxiedPD string
	advertisedPD, advertisedStore string
}

// server is a running engine with its listeners.
type server struct {
	engine *engine
	faults *faults
	stops  []func()
	// addresses are the ones really listened on.
	addresses
}

// start opens the engine in dir and serves it at the addresses, of which port 0 stands for any free one.
func start(dir string, at addresses) (*server, error) {
	engine, err := openEngine(dir)
	if err != nil {
		return nil, err
	}
	s := &server{engine: engine, faults: newFaults(), addresses: at}
	var listeners []net.Listener
	for _, address := range []*string{&s.pd, &s.proxiedPD, &s.store, &s.control} {
		listener, err := net.Listen("tcp", *address)
		if err != nil {
			s.stop()
			return nil, err
		}
		*address = listener.Addr().String()
		listeners = append(listeners, listener)
	}
	s.advertisedPD, s.advertisedStore = orElse(at.advertisedPD, s.proxiedPD), orElse(at.advertisedStore, s.store)
	tso := &timestamps{}

	direct, proxied, store := s.faults.server(), s.faults.server(), s.faults.server()
	pdpb.RegisterPDServer(direct, &pdServer{engine: engine, tso: tso, address: s.pd, storeAddress: s.store})
	pdpb.RegisterPDServer(proxied, &pdServer{
		engine: engine, tso: tso, address: s.advertisedPD, storeAddress: s.advertisedStore,
	})
	tikvpb.RegisterTikvServer(store, tikvServer{engine})
	s.faults.learn(direct)
	s.faults.learn(store)
	httpServer := &http.Server{Handler: control(engine, s.faults), ReadHeaderTimeout: 10 * time.Second}

	go func() { _ = direct.Serve(listeners[0]) }()
	go func() { _ = proxied.Serve(listeners[1]) }()
	go func() { _ = store.Serve(listeners[2]) }()
	go func() { _ = httpServer.Serve(listeners[3]) }()
	s.stops = []func(){direct.Stop, proxied.Stop, store.Stop, func() { _ = httpServer.Close() }}
	return s, nil
}

// stop closes the listeners, ends the calls under way, and closes the engine.
func (s *server) stop() {
	for _, stop := range s.stops {
		stop()
	}
	s.engine.Stop()
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
