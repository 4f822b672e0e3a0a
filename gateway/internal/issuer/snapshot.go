package issuer

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// snapshot is a file that keeps the last good keys, so that a gateway that is
// started while its provider is down can serve at once.
type snapshot struct {
	source
	Fetched time.Time       `json:"fetched"`
	JWKS    json.RawMessage `json:"jwks"`
}

// source is where keys are from: those of another must not serve.
type source struct {
	Issuer   string `json:"issuer"`
	JWKSURI  string `json:"jwks_uri,omitempty"` // as configured
	Insecure bool   `json:"insecure,omitempty"`
}

func (o *Options) source() source { return source{o.Issuer, o.JWKSURI, o.Insecure} }

// readSnapshot takes the keys from the snapshot if it is this issuer's and
// young enough. A bad one is only logged: the provider has better keys.
func (r *remote) readSnapshot() {
	if r.o.Snapshot == "" {
		return
	}
	set, text, err := loadSnapshot(r.o)
	switch {
	case os.IsNotExist(err):
	case err != nil:
		r.o.Log.Warn("the snapshot of the issuer's keys is not used", "file", r.o.Snapshot, "error", err)
	default:
		r.keys.Store(set)
		r.fetcher.text = text
		r.o.Log.Info("the issuer's keys, from the snapshot", "file", r.o.Snapshot, "fetched", set.fetched, "keys", names4log(set))
	}
}

func loadSnapshot(o *Options) (set *keySet, jwks []byte, err error) {
	file, err := os.Open(o.Snapshot)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 2*maxBody+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > 2*maxBody {
		return nil, nil, fmt.Errorf("it has more than %d bytes", 2*maxBody)
	}
	var s snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, nil, fmt.Errorf("it is not a snapshot: %w", err)
	}
	switch want := o.source(); {
	case s.Issuer != want.Issuer:
		return nil, nil, fmt.Errorf("it is of issuer %s, not of %s", quote(s.Issuer), quote(want.Issuer))
	case s.JWKSURI != want.JWKSURI:
		return nil, nil, fmt.Errorf("its keys are from jwks.uri %s, not from %s", quote(s.JWKSURI), quote(want.JWKSURI))
	case s.Insecure != want.Insecure:
		return nil, nil, fmt.Errorf("its keys were fetched with insecure: %t, not with %t", s.Insecure, want.Insecure)
	}
	now := o.Now()
	if age := now.Sub(s.Fetched); age > o.MaxStale {
		return nil, nil, fmt.Errorf("it is %s old, more than %s", age.Round(time.Second), o.MaxStale)
	}
	if s.Fetched.After(now) { // else a wrong clock then would make the keys last longer
		s.Fetched = now
	}
	set, _, err = parseJWKS(s.JWKS, o.Algorithms)
	if err != nil {
		return nil, nil, err
	}
	return set.at(s.Fetched), s.JWKS, nil
}

func (r *remote) writeSnapshot(fetched time.Time) {
	if r.o.Snapshot == "" {
		return
	}
	if err := saveSnapshot(r.o.Snapshot, snapshot{r.o.source(), fetched, r.fetcher.text}); err != nil {
		r.o.Log.Warn("cannot write the snapshot of the issuer's keys", "file", r.o.Snapshot, "error", err)
	}
}

// saveSnapshot replaces the file in one step, so that a crash leaves the old
// one or the new one. Whoever can write it chooses the keys: it is the owner's
// alone, which os.CreateTemp sees to.
func saveSnapshot(path string, s snapshot) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}
