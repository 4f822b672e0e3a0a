// Package socket reads and writes the TCP connections of callers and targets
// at the least cost.
//
// Go's scheduler is told of each system call, in case it blocks: from 20 µs on
// another thread takes over what else there is to do. A call on loopback or in
// a busy pod takes that long now and then, since the kernel delivers the bytes
// to the other end meanwhile, though it never waits. So these are made without
// telling, with flags by which the kernel does not let them wait; whoever has
// to wait does so in Go's poller, as ever.
package socket
