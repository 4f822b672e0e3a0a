//go:build image

// Command backend is a service that knows nothing of tokens. It listens on
// loopback alone, as one beside a sidecar should. It tells what it received; /held
// answers only once somebody has asked for /release.
package main

import (
	"encoding/json"
	"log"
	"net/http"
)

func main() {
	release := make(chan struct{})
	held := make(chan struct{}, 1)
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(r.Header) })
	http.HandleFunc("/held", func(w http.ResponseWriter, r *http.Request) {
		held <- struct{}{}
		<-release
		_, _ = w.Write([]byte("late, but here"))
	})
	http.HandleFunc("/waiting", func(http.ResponseWriter, *http.Request) { <-held }) // until a request is held
	http.HandleFunc("/release", func(http.ResponseWriter, *http.Request) { close(release) })
	log.Fatal(http.ListenAndServe("127.0.0.1:9000", nil))
}
