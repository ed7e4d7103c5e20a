package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/tidb/pkg/util/codec"
)

// region is a region as the control port tells it; keys as clients write them, in base64 (JSON's form of bytes).
type region struct {
	ID      uint64 `json:"id"`
	Start   []byte `json:"start"`
	End     []byte `json:"end"`
	Version uint64 `json:"version"`
}

func toRegion(meta *metapb.Region) (region, error) {
	r := region{ID: meta.Id, Version: meta.RegionEpoch.Version, Start: []byte{}, End: []byte{}}
	for _, edge := range []struct {
		from []byte
		to   *[]byte
	}{{meta.StartKey, &r.Start}, {meta.EndKey, &r.End}} {
		if len(edge.from) == 0 {
			continue
		}
		_, key, err := codec.DecodeBytes(edge.from, nil)
		if err != nil {
			return r, err
		}
		*edge.to = key
	}
	return r, nil
}

// control is the HTTP handler by which tests split regions and ask for faults:
//
//	POST /regions {"key": BASE64}            split so that the key starts a region; answers that region
//	GET /regions                             all regions in key order
//	POST /faults {"call","kind","times","delay_ms"}   put a fault in force; answers it with its id
//	GET /faults/ID?hits=N&timeout_ms=T       wait until the fault has hit N calls
//	DELETE /faults                           end all faults
//	GET /calls                               how often each RPC was called
//	GET /safe-point                          PD's GC safe point
func control(e *engine, t *faults) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /regions", func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Key []byte }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			answer(w, nil, err)
			return
		}
		meta, err := e.split(request.Key)
		if err != nil {
			answer(w, nil, err)
			return
		}
		made, err := toRegion(meta)
		answer(w, made, err)
	})
	mux.HandleFunc("GET /regions", func(w http.ResponseWriter, _ *http.Request) {
		regions := []region{}
		for _, found := range e.regionsFrom(nil, nil, 0) {
			r, err := toRegion(found.Meta)
			if err != nil {
				answer(w, nil, err)
				return
			}
			regions = append(regions, r)
		}
		answer(w, regions, nil)
	})
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var request fault
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			answer(w, nil, err)
			return
		}
		added, err := t.add(request)
		answer(w, added, err)
	})
	mux.HandleFunc("GET /faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(r.PathValue("id"))
		hits, _ := strconv.Atoi(r.URL.Query().Get("hits"))
		timeout, _ := strconv.Atoi(r.URL.Query().Get("timeout_ms"))
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(timeout)*time.Millisecond)
		defer cancel()
		now, err := t.wait(ctx, id, hits)
		answer(w, now, err)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		t.clear()
		answer(w, struct{}{}, nil)
	})
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, t.counts(), nil)
	})
	mux.HandleFunc("GET /safe-point", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]uint64{"safe_point": e.safePoint.get()}, nil)
	})
	return mux
}

// answer writes a value, or an error as status 400 with its sentence.
func answer(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		value = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(value)
}
