// Package upstream forwards requests to the targets of one upstream through
// httputil.ReverseProxy, and tells the ways apart in which that can fail.
package upstream
