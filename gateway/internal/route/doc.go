// Package route finds the one route that a request is for.
//
// Patterns and precedence are those of net/http.ServeMux. In front of it
// stands the canonical-path gate ([Table.Match]): a path that this gateway and
// a backend could read differently is refused before anything is matched, so
// that no spelling of a protected path is served by an unprotected route.
package route
