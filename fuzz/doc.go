// Package fuzz holds the fuzz targets that attack Shoal from outside, through its public API and through real
// sockets. README.md names the property that each target checks. Targets that need a package's internals lie in that
// package; make fuzz runs both kinds.
package fuzz
