package token

// Fold is the folding of one byte of a header's name by backends that know
// headers by the names of variables, as CGI (RFC 3875 §4.1.18), PHP and WSGI
// do: case aside, and every byte but letters and digits the same, a hyphen here.
func Fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}

// Alike says whether two header names are one to a backend that folds them.
func Alike(a, b string) bool { return len(a) == len(b) && foldAlike(a, b) }

func foldAlike(a, b string) bool {
	for i := range len(a) {
		if Fold(a[i]) != Fold(b[i]) {
			return false
		}
	}
	return true
}
