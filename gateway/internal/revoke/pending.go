package revoke

import (
	"errors"
	"sync"
)

// maxPending bounds the names of changed keys that wait to be read.
const maxPending = 500_000

// pending is what the server has told and the copy does not know yet.
type pending struct {
	mu   sync.Mutex
	keys map[string]struct{} // each is read once, however often it changed
	good int64               // when the last ping was sent that the server answered after all of keys; 0: none
	wake chan struct{}
}

func newPending() *pending {
	return &pending{keys: map[string]struct{}{}, wake: make(chan struct{}, 1)}
}

// add notes changed keys.
func (p *pending) add(keys []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys {
		p.keys[key] = struct{}{}
	}
	if len(p.keys) > maxPending {
		return errors.New("revocations change faster than they can be read")
	}
	p.signal()
	return nil
}

// pong notes that the server answered, at what it has told so far, a ping sent
// at the time at.
func (p *pending) pong(at int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good = at
	p.signal()
}

func (p *pending) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take empties p.
func (p *pending) take() (keys []string, good int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys = make([]string, 0, len(p.keys))
	for key := range p.keys {
		keys = append(keys, key)
	}
	if len(keys) > readChunk {
		p.keys = map[string]struct{}{} // a map does not shrink
	} else {
		clear(p.keys)
	}
	good, p.good = p.good, 0
	return keys, good
}
