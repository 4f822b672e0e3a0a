//go:build !race && linux && (amd64 || arm64)

package socket

func released() {}

func acquired(uintptr) {}
