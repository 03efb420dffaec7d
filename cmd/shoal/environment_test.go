package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// settingsOf returns the flags of a command whose values are not names of files, which would be read.
func settingsOf(tb testing.TB, command string) (flags []*kong.Flag) {
	tb.Helper()
	parser, err := newParser(newSettings(nil), streams{out: io.Discard, err: io.Discard}, func(int) {})
	if err != nil {
		tb.Fatal(err)
	}
	for _, child := range parser.Model.Children {
		if child.Name != command {
			continue
		}
		for _, flag := range child.Flags {
			named := strings.Contains(flag.PlaceHolder, "FILE") || flag.PlaceHolder == "DIR" || flag.Name == "help"
			if !named {
				flags = append(flags, flag)
			}
		}
	}
	return flags
}

// FuzzEnvironment gives one setting an arbitrary value in the environment. The configuration is accepted, or refused with
// the variable's name and without the value of a secret, just as it is if the flag has that value.
func FuzzEnvironment(f *testing.F) {
	flags := settingsOf(f, "check-config")
	if len(flags) < 50 {
		f.Fatalf("found %d settings", len(flags))
	}
	for i, flag := range flags {
		f.Add(uint8(i), flag.Default) //nolint:gosec // less than 256
	}
	hostile := []string{"", "0", "-1", "1e9", "9999999999999999999", "1s", "true", "a,b", "[", "http://[", "::1", "x y", "a=b"}
	for i := range 4 * len(hostile) {
		f.Add(uint8(i*7), hostile[i%len(hostile)]) //nolint:gosec // any flag
	}
	check := func(t *testing.T, flag *kong.Flag, env []string, more ...string) (status int, text string) {
		t.Helper()
		var out, errs bytes.Buffer
		args := []string{"check-config"}
		for name, value := range map[string]string{"jwt-secret": goodSecret, "authorize": "open"} {
			if name != flag.Name {
				args = append(args, "--"+name+"="+value)
			}
		}
		status = run(t.Context(), append(args, more...), env, strings.NewReader(""), &out, &errs)
		return status, out.String() + errs.String()
	}
	f.Fuzz(func(t *testing.T, index uint8, value string) {
		flag := flags[int(index)%len(flags)]
		if strings.ContainsRune(value, 0) {
			return // cannot be in an environment
		}
		status, text := check(t, flag, []string{variable(flag.Name) + "=" + value})
		if status != statusDone && status != statusUsage {
			t.Fatalf("status %d: %s", status, text)
		}
		if status == statusUsage && !strings.Contains(text, variable(flag.Name)) && !strings.Contains(text, flag.Name) {
			t.Errorf("%s=%q is refused without its name: %s", variable(flag.Name), value, text)
		}
		url := strings.Contains(flag.PlaceHolder, "URL") // only the password in it is secret
		if flag.Tag.Has("secret") && !url && len(value) > 12 && strings.Contains(text, value) {
			t.Errorf("the value of %s is printed", variable(flag.Name))
		}
		if value == "" || flag.IsSlice() || value != strings.TrimSpace(value) {
			return // is not set, a list, or refused in the environment only
		}
		if same, other := check(t, flag, nil, "--"+flag.Name+"="+value); same != status {
			t.Errorf("%s=%q gives status %d, the flag %d:\n%s%s", variable(flag.Name), value, status, same, text, other)
		}
	})
}
