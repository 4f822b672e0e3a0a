package test

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// lastPort starts at a place of this process's own below the range that the
// kernel gives to outgoing connections, so that neither they nor a second run
// of the tests take a port between its choice and its use.
var lastPort = func() *atomic.Int32 {
	var n atomic.Int32
	n.Store(int32(10000 + os.Getpid()%200*100))
	return &n
}()

// freePort returns a loopback port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := int(lastPort.Add(1))
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}
