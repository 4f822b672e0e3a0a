package inject

import "strings"

// Name folds a claim's name to the part of a header's name after the prefix:
// a hyphen goes before each ASCII capital that follows a lower-case ASCII
// letter, letters become lower case, each run of anything but ASCII letters
// and digits becomes one hyphen, and hyphens at the ends go. "" means that
// nothing is left, and the claim gets no header.
func Name(claim string) string { return string(appendName(nil, claim)) }

func appendName(b []byte, claim string) []byte {
	start := len(b)
	for i := range len(claim) {
		switch c := claim[i]; {
		case isUpper(c):
			if i > 0 && isLower(claim[i-1]) {
				b = append(b, '-')
			}
			b = append(b, c|0x20)
		case isLower(c), isDigit(c):
			b = append(b, c)
		case len(b) > start && b[len(b)-1] != '-':
			b = append(b, '-')
		}
	}
	if len(b) > start && b[len(b)-1] == '-' {
		b = b[:len(b)-1]
	}
	return b
}

// header returns the canonical name of the header for a claim, or "" if its
// folded name is empty. Tokens have the same few claims, whose headers share
// their names.
func (r *Rules) header(claim string) string {
	if name, ok := r.names.Load(claim); ok {
		return name.(string)
	}
	name := r.canonical(claim)
	if r.shared.Add(1) <= maxNames {
		r.names.Store(strings.Clone(claim), name) // the claim's name is part of its token
	}
	return name
}

// maxNames bounds the names that are shared.
const maxNames = 1024

func (r *Rules) canonical(claim string) string {
	var buf [64]byte
	b := appendName(append(buf[:0], r.prefix...), claim)
	if len(b) == len(r.prefix) {
		return ""
	}
	up := true
	for i, c := range b {
		if up && isLower(c) {
			b[i] = c &^ 0x20
		}
		up = c == '-'
	}
	return string(b)
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// registered reports whether the IANA registry "JSON Web Token Claims"
// (RFC 7519 §10.1, as of 2026) lists the claim. Of two claims that fold to one
// header the registered one wins: its meaning is fixed, so an issuer that lets
// users name claims cannot be made to say "Sub" in place of "sub".
func registered(claim string) bool {
	switch claim {
	case "iss", "sub", "aud", "exp", "nbf", "iat", "jti",
		"name", "given_name", "family_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
		"website", "email", "email_verified", "gender", "birthdate", "zoneinfo", "locale", "phone_number",
		"phone_number_verified", "address", "updated_at", "azp", "nonce", "auth_time", "at_hash", "c_hash", "acr", "amr",
		"sub_jwk", "cnf", "sip_from_tag", "sip_date", "sip_callid", "sip_cseq_num", "sip_via_branch", "orig", "dest",
		"mky", "events", "toe", "txn", "rph", "sid", "vot", "vtm", "attest", "origid", "act", "scope", "client_id",
		"may_act", "jcard", "at_use_nbr", "div", "opt", "vc", "vp", "sph", "ace_profile", "cnonce", "exi", "roles",
		"groups", "entitlements", "token_introspection", "eat_nonce", "ueid", "sueids", "oemid", "hwmodel", "hwversion",
		"oemboot", "dbgstat", "location", "eat_profile", "submods", "uptime", "bootcount", "bootseed", "dloas", "swname",
		"swversion", "manifests", "measurements", "measres", "intuse", "cdniv", "cdnicrit", "cdniip", "cdniuc",
		"cdniets", "cdnistt", "cdnistd", "sig_val_claims", "authorization_details", "verified_claims", "place_of_birth",
		"nationalities", "birth_family_name", "birth_given_name", "birth_middle_name", "salutation", "title", "msisdn",
		"also_known_as", "htm", "htu", "ath", "atc", "sub_id", "rcd", "rcdi", "crn", "msgi", "_claim_names",
		"_claim_sources", "rdap_allowed_purposes", "rdap_dnt_allowed", "geohash", "_sd", "_sd_alg", "sd_hash",
		"consumerPlmnId", "consumerSnpnId", "producerPlmnId", "producerSnpnId", "producerSnssaiList", "producerNsiList",
		"producerNfSetId", "producerNfServiceSetId", "sourceNfInstanceId", "analyticsIdList", "resOwnerId", "cmw", "jwks",
		"metadata", "constraints", "crit", "ref", "delegation", "logo_uri", "authority_hints", "trust_anchor_hints",
		"trust_marks", "trust_mark_issuers", "trust_mark_owners", "metadata_policy", "metadata_policy_crit",
		"source_endpoint", "keys", "trust_mark_type", "trust_chain", "trust_anchor", "status", "status_list", "ttl":
		return true
	}
	return false
}
