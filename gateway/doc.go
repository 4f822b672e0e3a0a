// Package gateway is Gatehouse as an http.Handler: it checks every token at
// the edge and tells the backends behind it who is calling.
//
// [New] builds a [Gateway] from a configuration; [Gateway.Serve] listens and
// drains, or another program mounts the Gateway as a handler of its own.
// [Gateway.Reload] swaps the configuration without losing a request.
package gateway
