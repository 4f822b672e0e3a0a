package issuer

import (
	"fmt"
	"strings"
	"testing"

	"gatehouse/gateway/token"
)

// No two texts have one digest, however alike they are, with or without GCM.
func TestDigest(t *testing.T) {
	long := strings.Repeat("eyJhbGciOiJSUzI1NiJ9.", 40)
	texts := []string{long + long, long + ".", strings.Repeat("a", maxToken)}
	for i := range len(long) {
		texts = append(texts, long[:i], long[:i]+"\x00"+long[i+1:], long[:i]+string(long[i]^1)+long[i+1:])
	}
	for n := range 100 { // GHASH fills up its blocks with zeros
		texts = append(texts, strings.Repeat("\x00", n+1))
	}
	check := func(t *testing.T) {
		seen := map[digest]string{}
		for _, text := range texts {
			d := digestOf(token.NewRaw(text))
			if other, ok := seen[d]; ok {
				t.Errorf("%q and %q have one digest", text, other)
			}
			seen[d] = text
			if again := digestOf(token.NewRaw(strings.Clone(text))); again != d {
				t.Errorf("%q has two digests", text)
			}
		}
		raw := token.NewRaw(long)
		if n := testing.AllocsPerRun(100, func() { _ = digestOf(raw) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
	if gmac != nil { // GODEBUG=fips140=only has none
		t.Run("GMAC", check)
	}
	kept := gmac
	defer func() { gmac = kept }()
	gmac = nil
	t.Run("SHA-256", check)
}

func BenchmarkDigest(b *testing.B) {
	for _, size := range []int{100, 800, maxToken} {
		raw := token.NewRaw(strings.Repeat("a", size))
		b.Run(fmt.Sprint("bytes=", size), func(b *testing.B) {
			for b.Loop() {
				digestOf(raw)
			}
		})
	}
}
