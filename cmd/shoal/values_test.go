package main

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "65536": 65536, "64KiB": 64 << 10, "1 MiB": 1 << 20, "2GiB": 2 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "KiB", "-1", "-1KiB", "1.5MiB", "1MB", "1kib", "0x10", "1_000", "99999999999999999999",
		"9223372036854775807GiB",
	} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]rate{
		"50/s": {50, 200}, "50/s,10": {50, 10}, "0.1/s": {0.1, 1}, "2.5/s, 7": {2.5, 7}, " 1/s ": {1, 4},
	} {
		if got, err := parseRate(text, nil); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "50", "/s", "0/s", "-1/s", "NaN/s", "Inf/s", "1e9/s",
		"50/m", "50/s,", "50/s,0", "50/s,-1", "50/s,1.5", "50/s,2000000", "50/s,1,1",
	} {
		if got, err := parseRate(text, nil); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"a", ""}: 1, {"", "ab"}: 2, {"adr", "addr"}: 1, {"addr", "adr"}: 1,
		{"jwt_secret", "jwt-secret"}: 1, {"kitten", "sitting"}: 3,
	} {
		if got := editDistance(pair[0], pair[1]); got != want {
			t.Errorf("%q: %d, want %d", pair, got, want)
		}
	}
}
