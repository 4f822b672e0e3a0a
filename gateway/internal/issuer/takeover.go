package issuer

// sameSource says whether o and p have their keys from the same place, by ways
// that both allow. Which of them are of use [remote.takeOver] decides anew.
func (o *Options) sameSource(p *Options) bool {
	return o.source() == p.source() && o.Client == p.Client
}

// takeOver takes the snapshot file from the remote whose place r takes, which may
// go on meanwhile, and, if both have their keys from the same place, begins where
// it stands: with its keys, as old as they are and read as r reads them, and with
// what it knows of the provider. The next fetch comes when it would have come
// there, or sooner if r's intervals are shorter.
func (r *remote) takeOver() {
	from := r.from
	r.from = nil // or every reload would keep all before it in memory
	if from == nil {
		return
	}
	from.replaced.Store(true)
	if !r.o.sameSource(from.o) {
		return
	}
	// Also without keys: opaque tokens need none.
	asker := r.fetcher.asker
	known := asker == nil || asker.takeOver(from.fetcher.asker)
	from.mu.Lock()
	keys, s, flying := from.keys.Load(), from.state, from.flight != nil
	from.mu.Unlock()
	if keys == nil {
		return
	}
	set, reasons, err := parseJWKS(s.brought.text, r.o.Algorithms)
	if err != nil {
		return // none fits the algorithms of now
	}
	r.logSkipped(reasons)
	interval := r.o.Refresh
	if s.failures > 0 {
		interval = r.o.MinRefreshInterval
	}
	if latest := s.started.Add(interval + interval/10); s.due.After(latest) {
		s.due = latest
	}
	now := r.o.Now()
	if flying || !known {
		s.due = now // what the fetch under way brings is not for r, or metadata are needed that nobody has read
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys.Store(set.at(keys.fetched))
	r.fetcher.brought = s.brought
	r.state = s
	if s.due.After(now) {
		close(r.first) // nothing to wait for
	}
}
