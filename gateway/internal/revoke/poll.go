package revoke

import (
	"context"
	"time"
)

// poll reads everything, pauses, and reads everything again. It returns nil
// when it is time to try tracking again, else why it cannot go on.
func (s *session) poll(ctx context.Context) error {
	begun := time.Now()
	for loaded := false; s.sync == Poll || time.Since(begun) < retryTracking; loaded = true {
		start := s.reader.ledger.now()
		if err := s.replaced(ctx); err != nil {
			return err
		}
		err := within(ctx, max(s.patience, readTimeout), func(ctx context.Context) error {
			return s.reader.scan(ctx, func() error { return nil })
		})
		if err != nil {
			return err
		}
		s.report(standing{mode: Poll, connected: true, inStep: true, good: max(start, 1), loaded: !loaded, warning: s.warning})
		took := time.Duration(s.reader.ledger.now()-start) * time.Millisecond
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(s.pause, took)):
		}
	}
	return nil
}
