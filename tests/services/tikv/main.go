// Command tikv serves TiDB's embedded TiKV engine (unistore) over the real PD and TiKV gRPC protocols, for tests on a
// machine that has neither. One store, one replica, no RawKV; tests/services/README.md says the rest.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var dir string
	var at addresses
	flag.StringVar(&dir, "data", "", "folder of the data; made if missing")
	flag.StringVar(&at.pd, "pd", "127.0.0.1:2379", "PD's address")
	flag.StringVar(&at.store, "store", "127.0.0.1:20160", "TiKV's address")
	flag.StringVar(&at.control, "control", "127.0.0.1:0", "address of the control port (HTTP)")
	flag.StringVar(&at.proxiedPD, "proxied-pd", "127.0.0.1:0", "a second address of PD's, for clients behind proxies")
	flag.StringVar(&at.advertisedPD, "advertised-pd", "", "what the second PD calls itself: a proxy's address")
	flag.StringVar(&at.advertisedStore, "advertised-store", "", "where the second PD says TiKV is: a proxy's address")
	flag.Parse()
	if err := run(dir, at); err != nil {
		fmt.Fprintln(os.Stderr, "tikv:", err)
		os.Exit(1)
	}
}

func run(dir string, at addresses) error {
	if dir == "" {
		return fmt.Errorf("-data is missing: the folder to keep the data in")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := start(dir, at)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	s.stop()
	return nil
}
