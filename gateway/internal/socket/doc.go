// Package socket reads and writes the TCP connections of callers and targets
// at the least cost.
//
// Go's scheduler is told of each system call, in case it blocks: from 20 µs on
// another thread takes over what else there is to do. A call on loopback or in
// a busy pod takes that long now and then, since the kernel delivers the bytes
// to the other end meanwhile, though it does not wait for it. So these are made
// without telling, with flags by which the kernel returns where it would wait for
// the other end; whoever has to wait for that does so in Go's poller, as ever.
// What it does itself meanwhile, say find memory, holds up the processor that
// the goroutine has.
package socket
