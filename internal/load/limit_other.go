//go:build !unix

package load

func checkFileLimit(int) error { return nil }
