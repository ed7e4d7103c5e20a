package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
)

func (c *cluster) ask(method, path, body string, into any) int {
	c.t.Helper()
	request, err := http.NewRequestWithContext(
		deadline(c.t), method, "http://"+c.control+path, bytes.NewBufferString(body),
	)
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer got.Body.Close()
	if err := json.NewDecoder(got.Body).Decode(into); err != nil {
		c.t.Fatal(err)
	}
	return got.StatusCode
}

// The control port splits regions and lists them with keys as clients write them.
func TestControlRegions(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	var made region
	if code := c.ask("POST", "/regions", `{"key": "bQ=="}`, &made); code != 200 || string(made.Start) != "m" {
		t.Fatalf("got %d %v", code, made)
	}
	var all []region
	c.ask("GET", "/regions", "", &all)
	if len(all) != 2 || string(all[0].End) != "m" || all[1].ID != made.ID || len(all[1].End) != 0 {
		t.Fatalf("got %v", all)
	}
	var refusal map[string]string
	for _, wrong := range []string{`{"key": ""}`, `{"key"`} {
		if code := c.ask("POST", "/regions", wrong, &refusal); code != 400 || refusal["error"] == "" {
			t.Fatalf("%s: got %d %v", wrong, code, refusal)
		}
	}
}

// The control port puts faults in force, waits for their hits, ends them, and tells the calls made.
func TestControlFaults(t *testing.T) {
	c := startCluster(t, t.TempDir(), addresses{})
	var added fault
	if code := c.ask("POST", "/faults", `{"call": "KvGet", "kind": "refuse", "times": 1}`, &added); code != 200 {
		t.Fatalf("got %d", code)
	}
	if _, err := c.tryGet(deadline(t), c.route("k"), "k"); err == nil {
		t.Fatal("not refused")
	}
	var hit fault
	path := fmt.Sprintf("/faults/%d?hits=1&timeout_ms=10000", added.ID)
	if code := c.ask("GET", path, "", &hit); code != 200 || hit.Hits != 1 {
		t.Fatalf("got %d %v", code, hit)
	}
	var calls map[string]int
	if c.ask("GET", "/calls", "", &calls); calls["KvGet"] != 1 {
		t.Fatalf("got %v", calls)
	}
	var nothing map[string]any
	if code := c.ask("DELETE", "/faults", "", &nothing); code != 200 {
		t.Fatalf("got %d", code)
	}
	if code := c.ask("GET", path, "", &nothing); code != 400 {
		t.Fatalf("a fault that was ended is still there: %d", code)
	}
	var safePoint map[string]uint64
	if c.ask("GET", "/safe-point", "", &safePoint); safePoint["safe_point"] != 0 {
		t.Fatalf("got %v", safePoint)
	}
}
