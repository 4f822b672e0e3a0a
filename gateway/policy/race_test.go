//go:build race

package policy

// raceEnabled: sync.Pool drops at random under the race detector.
const raceEnabled = true
